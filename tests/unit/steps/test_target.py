"""target: where every byte of a restored file goes, and what it may say of itself."""

from __future__ import annotations

import pytest

from kvq_cli import pipeline
from kvq_cli.capture import open_capture
from kvq_cli.errors import UsageError
from kvq_cli.steps.select import Selection
from kvq_cli.words import Role
from support.captures import canonical_capture, kv_bits, per_layer_capture, safetensors_bytes

STALE = {"tokens": "5", "layers": "2", "kv_heads": "2", "dtype": "F16", "model": "m"}
HEADS = {"query_heads": "4", "attention_kind": "gqa"}


def restored(tmp_path, data, selection=None, **options):
    """The metadata, tensor names and layout of what is restored."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data)
    pipeline.compress(source, tmp_path / "in.kvq", threads=1, force=True)
    chosen = selection or Selection()
    pipeline.decompress(
        tmp_path / "in.kvq", target, selection=chosen, threads=1, force=True, **options
    )
    with open_capture(target) as capture:
        header = capture.source.header
        return header.metadata, {tensor.name for tensor in header.tensors}, capture.layout


def test_stale_metadata_goes(tmp_path):
    """Metadata that a slice makes untrue is left out, the rest stays."""
    data = canonical_capture(metadata=STALE | HEADS)
    whole, _, _ = restored(tmp_path, data)
    assert whole == STALE | HEADS
    part, _, _ = restored(tmp_path, data, Selection(chosen_tokens=(0,)))
    assert part == {"model": "m"} | HEADS
    part, _, _ = restored(tmp_path, data, Selection(chosen_heads=(0,)))
    assert part == {"model": "m"}
    part, _, _ = restored(tmp_path, data, Selection(chosen_layers=(1,)))
    assert part == {"model": "m", "layer_indices": "[1]"} | HEADS


def test_per_layer_names_keep_their_numbers(tmp_path):
    """A slice of layers in a layout with names has the names of those layers."""
    data = per_layer_capture(tokens=(5, 5, 5))
    _, names, layout = restored(tmp_path, data, Selection(chosen_layers=(0, 2)))
    assert names == {f"layers.{layer}.{role}" for layer in (0, 2) for role in ("key", "value")}
    assert layout == "hf"
    _, names, layout = restored(tmp_path, data, layout="canonical")
    assert (names, layout) == ({"key", "value"}, "canonical")


def test_other_tensors(tmp_path):
    """They are carried where no row is chosen, in any layout, and left out of slices."""
    shape = (1, 1, 2, 5, 8)
    bits = kv_bits(shape).tobytes()
    data = safetensors_bytes(
        dict.fromkeys(("key", "value"), ("F16", shape, bits)) | {"p": ("U8", (3,), b"abc")}
    )
    for layout in ("source", "canonical", "hf"):
        assert "p" in restored(tmp_path, data, layout=layout)[1]
    assert "p" not in restored(tmp_path, data, Selection(roles=(Role.KEY,)))[1]


def test_a_name_that_is_taken(tmp_path):
    """A carried tensor of the new layout's name is refused, not overwritten."""
    shape = (1, 1, 2, 5, 8)
    bits = kv_bits(shape).tobytes()
    source = tmp_path / "in"
    source.write_bytes(
        safetensors_bytes({"key": ("F16", shape, bits), "layers.0.key": ("U8", (3,), b"abc")})
    )
    pipeline.compress(source, tmp_path / "in.kvq", layout="canonical", threads=1)
    with pytest.raises(UsageError) as caught:
        pipeline.decompress(tmp_path / "in.kvq", tmp_path / "out", layout="hf", threads=1)
    assert caught.value.error_id == "E101"
    assert not (tmp_path / "out").exists()
