"""settle: how heads, pages and logits are gathered decides nothing."""

from __future__ import annotations

import json

import pytest

from kvq_cli import pipeline
from support.captures import canonical_capture

BUDGET = {"max_attention_tv": 0.01, "max_value_aggregation_mse": 1e-3, "max_logit_mse": 1e-2}
RULES = [{"role": "key", "heads": [[0, 1]], "codec": "int8"}, {"codec": "int4"}]


def content_root(tmp_path, **budget):
    """Of 300 tokens with pages of 32, the last of which is shorter."""
    cache, profile, box = (tmp_path / name for name in ("cache", "p.json", "box"))
    cache.write_bytes(canonical_capture(layers=2, heads=3, tokens=300, channels=32))
    told = {"schema": "kvq_profile_v1", "name": "p", "page_tokens": 32, "rules": RULES}
    profile.write_text(json.dumps(told | {"budget": BUDGET | budget}))
    found = pipeline.compress(cache, box, profiles=[profile], queries="self", threads=1, force=True)
    assert found.raw_pages
    return found.content_root


@pytest.mark.parametrize("ladder", [[], [{"codec": "int8"}]])
def test_gathering_decides_nothing(tmp_path, monkeypatch, ladder):
    """One head or all at a time, with room for everything or nothing: the same container."""
    monkeypatch.setattr("kvq_cli.steps.trial.FEW", 0)
    whole = content_root(tmp_path, ladder=ladder)
    for name, value in (("settle.SIDE", 0), ("settle.ROOM", 0), ("trial.KEPT", 9000)):
        monkeypatch.setattr(f"kvq_cli.steps.{name}", value)
        assert content_root(tmp_path, ladder=ladder) == whole
