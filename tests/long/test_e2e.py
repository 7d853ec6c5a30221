"""The measurement of `make e2e`, with a small model of random weights."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'kvq-cli[hf]'")
pytest.importorskip("transformers", reason="no transformers: pip install 'kvq-cli[hf]'")

import torch
import transformers

from benchmarks import e2e

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
