"""The examples for transformers, with small models of random weights; nothing is downloaded.

llama     grouped queries
qwen2     biased projections
gemma3    layers with a sliding window beside full ones, norms before rotation, bases by layer
"""

from __future__ import annotations

import math
import sys

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'kvq-cli[hf]'")
pytest.importorskip("transformers", reason="no transformers: pip install 'kvq-cli[hf]'")

import torch
import transformers

import capture_hf
import hf_model
import kvq_cli
import restore_hf
from support.real import tensors

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]
SIZES = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}  # fmt: skip
WINDOW = 8
KINDS = ["sliding_attention", "full_attention"] * 2
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES | {"head_dim": 16}),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **SIZES, sliding_window=WINDOW, layer_types=KINDS
    ),
}
LAYOUTS = [("llama", "canonical"), ("llama", "hf"), ("qwen2", "canonical"), ("gemma3", "hf")]
PROMPT = [(7 * at * at + 3 * at) % 64 for at in range(24)]
FOLLOWING = [(5 * at * at + at + 1) % 64 for at in range(12)]


def model_of(name):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()
    for parameter in model.parameters():  # biases and norms too, which start as constants
        torch.nn.init.normal_(parameter, std=0.15)
    return model


def captured(model, path, layout, **options):
    layers, queries, told = capture_hf.capture(model, PROMPT, queries=5, **options)
    capture_hf.write(path, layers, queries, told | {"model": "random"}, layout)
    return layers, queries, told


def without_a_file(model):
    """Logits after the tokens that follow, all read at once."""
    cache = transformers.DynamicCache(config=model.config)
    return hf_model.forward(model, PROMPT + FOLLOWING, cache)[len(PROMPT) :]


@pytest.mark.parametrize("pre_rope", [False, True])
@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_a_restored_capture_goes_on_as_if_it_had_not_been_stored(name, layout, pre_rope, tmp_path):
    """Captured, compressed without loss, restored: the same file, the same logits, to 1e-5."""
    model = model_of(name)
    source, box, back = (tmp_path / each for each in ("a.safetensors", "b.kvq", "c.safetensors"))
    captured(model, source, layout, dtype="f32", pre_rope=pre_rope)
    kvq_cli.compress(source, box)
    kvq_cli.decompress(box, back)
    assert back.read_bytes() == source.read_bytes()
    found = hf_model.forward(model, FOLLOWING, restore_hf.restore(model, back))
    torch.testing.assert_close(found, without_a_file(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_keys_before_rotation_turn_into_those_after_it(name, layout, tmp_path):
    """Keys and queries: turned by their positions, they are what attention got."""
    model = model_of(name)
    path = tmp_path / "a.safetensors"
    before, asked, told = captured(model, path, layout, dtype="f32", pre_rope=True)
    after, turned_queries, _ = captured(model, path, layout, dtype="f32")
    assert told["rope_state"] == "pre"
    for number, ((key, value), (turned, same)) in enumerate(zip(before, after, strict=True)):
        first = len(PROMPT) - key.shape[2]
        assert first in (0, len(PROMPT) - WINDOW + 1)
        torch.testing.assert_close(hf_model.turned(model, number, key, first), turned)
        assert not torch.allclose(key, turned)
        torch.testing.assert_close(value, same)
        query = hf_model.turned(model, number, asked[:, number], len(PROMPT) - 5)
        torch.testing.assert_close(query, turned_queries[:, number])


@pytest.mark.parametrize("pre_rope", [False, True])
@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_kvq_understands_queries_and_metadata(name, layout, pre_rope, tmp_path):
    """Attention is measured with the model's queries, where keys are turned by kvq too."""
    path = tmp_path / "a.safetensors"
    told = captured(model_of(name), path, layout, pre_rope=pre_rope)[2]
    queries = path.with_suffix(".query.safetensors")
    report = kvq_cli.stats(path, profiles=["int8"], queries=queries)
    assert 0 < report.attention[-1]["attention_tv"] < 0.05
    assert told["attention_kind"] == "gqa"
    assert told["query_heads"] == "4"
    assert told.get("qkv_bias") == ("true" if name == "qwen2" else None)
    shapes = {name: bits.shape for name, _, bits in tensors(queries)}
    width = SIZES["head_dim"] if name != "qwen2" else 16
    assert shapes == {"query": (1, 4, 4, 5, width), "positions": (5,)}


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_halves_are_written_as_they_are_called(dtype, tmp_path):
    """Keys, values and queries are of the dtype that was asked."""
    path = tmp_path / "a.safetensors"
    captured(model_of("llama"), path, "canonical", dtype=dtype)
    for each in (path, path.with_suffix(".query.safetensors")):
        names = {name: kind for name, kind, _ in tensors(each) if name != "positions"}
        assert set(names.values()) == {dtype.upper()}


def test_a_ragged_cache_is_not_canonical(tmp_path):
    """Layers with a window hold window - 1 tokens; one line says which layout takes them."""
    path = tmp_path / "a.safetensors"
    with pytest.raises(SystemExit, match="--layout hf"):
        captured(model_of("gemma3"), path, "canonical")
    captured(model_of("gemma3"), path, "hf")
    counts = [bits.shape[2] for name, _, bits in tensors(path) if name.endswith("key")]
    assert sorted(counts) == [WINDOW - 1] * 2 + [len(PROMPT)] * 2


def test_queries_need_a_layer_that_keeps_all_tokens(tmp_path):
    """Where every layer has a window, nobody could tell which keys a query saw."""
    config = transformers.MistralConfig(**SIZES, sliding_window=WINDOW)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    path = tmp_path / "a.safetensors"
    with pytest.raises(SystemExit, match="--queries 0"):
        captured(model, path, "hf")
    layers, _, told = capture_hf.capture(model, PROMPT, dtype="f32")
    capture_hf.write(path, layers, None, told)
    found = hf_model.forward(model, FOLLOWING, restore_hf.restore(model, path))
    torch.testing.assert_close(found, without_a_file(model), rtol=1e-5, atol=1e-5)


def test_the_first_tokens_are_a_cache(tmp_path):
    """What kvq restored of the first tokens is the cache of a model that read those alone."""
    model = model_of("llama")
    source, box, back = (tmp_path / each for each in ("a.safetensors", "b.kvq", "c.safetensors"))
    captured(model, source, "canonical", dtype="f32", pre_rope=True)
    kvq_cli.compress(source, box)
    kvq_cli.decompress(box, back, selection=kvq_cli.Selection(chosen_tokens=[slice(0, 16)]))
    found = hf_model.forward(model, PROMPT[16:], restore_hf.restore(model, back))
    cache = transformers.DynamicCache(config=model.config)
    torch.testing.assert_close(found, hf_model.forward(model, PROMPT, cache)[16:])


def test_a_layer_that_lacks_tokens_is_no_cache(tmp_path):
    """The model would take every token that is left for an earlier one."""
    model = model_of("llama")
    layers, _, told = capture_hf.capture(model, PROMPT)
    capture_hf.write(tmp_path / "a.safetensors", layers, None, told | {"tokens": "30"})
    with pytest.raises(SystemExit, match="has not all 30 tokens"):
        restore_hf.restore(model, tmp_path / "a.safetensors")


def test_the_model_is_left_as_it_was():
    """After a capture the model runs its own attention and its own rotation."""
    model = model_of("llama")
    usual, turn = model.config._attn_implementation, hf_model.code_of(model).apply_rotary_pos_emb
    capture_hf.capture(model, PROMPT, pre_rope=True)
    assert model.config._attn_implementation == usual
    assert hf_model.code_of(model).apply_rotary_pos_emb is turn


def words_folder(folder):
    """A folder of transformers: a model, and a tokenizer of 64 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(64)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    model_of("llama").save_pretrained(folder)


def test_the_two_commands(tmp_path, monkeypatch, capsys):
    """capture_hf writes three files; restore_hf prints the perplexity that the model has."""
    words_folder(tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"w{n}" for n in PROMPT + FOLLOWING))
    out = tmp_path / "a.safetensors"
    options = ["--text", str(text), "--tokens", "24", "--dtype", "f32", "--meta", "engine=none"]
    monkeypatch.setattr(sys, "argv", ["capture_hf", str(tmp_path / "model"), str(out), *options])
    capture_hf.main()
    told = kvq_cli.inspect(out).found["identity"]
    assert told["model"] == "model"
    assert told["engine"] == "none"
    monkeypatch.setattr(sys, "argv", ["restore_hf", str(tmp_path / "model"), str(out)])
    restore_hf.main()
    expected = restore_hf.losses(without_a_file(model_of("llama")), FOLLOWING).mean()
    printed = capsys.readouterr().out
    first = next(line for line in printed.splitlines() if line.startswith("perplexity of 11"))
    assert float(first.split()[-1]) == pytest.approx(math.exp(expected), rel=1e-4)
