"""The measurement of `make e2e`, with a small model of random weights."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'kvq-cli[hf]'")
pytest.importorskip("transformers", reason="no transformers: pip install 'kvq-cli[hf]'")

import torch
import transformers

from benchmarks import e2e
from kvq_cli.pipeline import calibrate_transform

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]
IDS = [(7 * at * at + 3 * at) % 64 for at in range(40)]


def test_what_is_not_lost_changes_nothing(tmp_path):
    """Lossless is exactly the untouched cache, int8 near it, fibquant-1bit far from it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, initializer_range=0.2,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    run = e2e.Run(model, ["lossless", "int8", "fibquant-1bit"])
    for _ in range(2):
        run.window(tmp_path, IDS[:28], IDS[28:])
    lossless, int8, one_bit = run.rows()
    assert [lossless[name] for name in ("change_percent", "kl", "top1")] == [0, 0, 1]
    assert 0 < int8["kl"] < 0.01 * one_bit["kl"]
    assert e2e.figures(run.unstored)["kl"] < 1e-5
    assert len(run.looks["int8"][0]["kl"]) == 11


def test_transform_is_measured_with_its_calibration(tmp_path):
    """Its container refers to the calibration; one that holds the table is larger by it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, initializer_range=0.2,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    source, calibration = tmp_path / "other.safetensors", tmp_path / "a.kvqcal"
    other = [(5 * at * at + 11 * at + at // 64) % 64 for at in range(600)]
    layers, queries, told = e2e.capture(model, other, queries=64)
    e2e.write(source, layers, queries, told)
    calibrate_transform([source], calibration)
    profile = tmp_path / "fine.json"
    rule = {"codec": {"name": "transform", "step": 100}}
    told = {"schema": "kvq_profile_v1", "name": "fine", "rules": [rule]}
    profile.write_text(json.dumps(told), "utf-8")
    run = e2e.Run(model, ["int8", str(profile)], calibration)
    run.window(tmp_path, IDS[:28], IDS[28:])
    int8, fine = run.rows()
    assert "embedded_ratio" not in int8
    assert fine["profile"] == "fine"
    assert 0 < fine["kl"] < 0.01
    assert 0 < fine["embedded_ratio"] < fine["ratio"]


def test_profiles_of_transform_wait_for_a_calibration(monkeypatch):
    """Of the built-in ones; what is named is measured, or refused, as it is."""
    monkeypatch.setattr(e2e, "builtin_names", lambda: ("int8", "raw"))
    monkeypatch.setattr(e2e, "is_transform", lambda name: name == "raw")

    def options(profile, calibration):
        return Namespace(profile=profile, calibration=calibration)

    assert e2e.chosen(options(None, None)) == ["int8"]
    assert e2e.chosen(options(None, "a.kvqcal")) == ["int8", "raw"]
    assert e2e.chosen(options(["raw"], None)) == ["raw"]


def test_figures_are_of_all_tokens_together():
    """Windows count by their tokens, and the change is that of the perplexity."""
    one = {"loss": [1.0, 2.0], "untouched": [1.0, 1.5], "kl": [0.1, 0.3], "top1": [1.0, 0.0]}
    other = {"loss": [3.0], "untouched": [3.0], "kl": [0.2], "top1": [1.0]}
    windows = [{name: torch.tensor(each) for name, each in part.items()} for part in (one, other)]
    found = e2e.figures(windows)
    assert found["perplexity"] == pytest.approx(2.718281828**2, rel=1e-6)
    assert found["change_percent"] == pytest.approx(100 * (2.718281828 ** (0.5 / 3) - 1), rel=1e-6)
    assert found["kl"] == pytest.approx(0.2, rel=1e-6)
    assert found["top1"] == pytest.approx(2 / 3, rel=1e-6)
