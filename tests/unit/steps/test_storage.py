"""Storage: what the entropy stage saves is told, and a fixed rate is one."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from kvq_cli.pipeline import compress, inspect, stats
from kvq_cli.profile import parse_profile
from support.captures import canonical_capture

CONTRACT = Path(__file__).parents[3] / "formats" / "vectors" / "contract" / "fibquant.json"
RULES = [
    {"role": "key", "codec": {"name": "int8", "axis": "channel"}},
    {"layers": [[1, 2]], "codec": "raw"},
    {"codec": {"name": "int8", "axis": "token"}},
]


def profile(**members):
    value = {"schema": "kvq_profile_v1", "name": "p", "page_tokens": 64, "rules": RULES}
    return parse_profile(value | members)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("storage") / "cache"
    path.write_bytes(canonical_capture(layers=2, heads=4, tokens=256, channels=32))
    return path


@pytest.mark.parametrize("entropy", ["zstd", "none"])
def test_what_zstd_saved(capture, entropy, tmp_path):
    """Packed and stored bytes: over all in both reports, by codec and by plane in stats."""
    chosen = profile(storage={"entropy": entropy})
    compressed = compress(capture, tmp_path / "box", profiles=[chosen], threads=1)
    report = stats(tmp_path / "box", threads=1)
    assert (compressed.packed_bytes, compressed.stored_bytes) == (
        report.packed_bytes,
        report.stored_bytes,
    )
    for rows in (report.codecs, report.planes):
        assert sum(row["packed"] for row in rows) == report.packed_bytes
        assert sum(row["stored"] for row in rows) == report.stored_bytes == report.parts["pages"]
    assert {row["name"] for row in report.codecs} == {"int8", "raw"}
    assert (report.stored_bytes < report.packed_bytes) == (entropy == "zstd")


def page_sizes(path):
    """Stored and packed bytes of pages, by codec, role, number of heads and number of tokens."""
    sizes = defaultdict(set)
    for page in inspect(path, pages=True).to_json()["pages"]:
        start, stop = page["tokens"]
        kind = (page["codec"], page["role"], len(page["heads"]), stop - start)
        sizes[kind].add((page["stored"], page["packed"]))
    return sizes


@pytest.mark.parametrize("rules", [RULES, [{"codec": "int8"}], [{"codec": "lossless"}]])
def test_a_fixed_rate(capture, rules, tmp_path):
    """Every page of a codec and spec has one size, and without the promise they differ."""
    compress(capture, tmp_path / "fixed", profiles=[profile(fixed_rate=True, rules=rules)])
    compress(capture, tmp_path / "free", profiles=[profile(rules=rules)])
    assert all(len(sizes) == 1 for sizes in page_sizes(tmp_path / "fixed").values())
    assert any(len(sizes) > 1 for sizes in page_sizes(tmp_path / "free").values())


def test_a_fixed_rate_in_company(tmp_path):
    """It holds for the whole file, also where another profile, of the other role, comes first."""
    known = json.loads(json.loads(CONTRACT.read_text())["kv_profiles"][-1]["json"])
    (tmp_path / "keys.json").write_text(json.dumps({**known, "axis_policy": "raw"}))
    told = {"attention_kind": "mha", "query_heads": "1", "rope_state": "post"}
    (tmp_path / "cache").write_bytes(
        canonical_capture(layers=1, heads=1, tokens=4, channels=8, dtype="F32", metadata=told)
    )
    chosen = [tmp_path / "keys.json", profile(fixed_rate=True)]
    compress(tmp_path / "cache", tmp_path / "box", profiles=chosen)
    found = inspect(tmp_path / "box").to_json()
    assert [each["roles"] for each in found["profiles"]] == [["key"], ["value"]]
    assert found["storage"]["entropy"] == "none"
