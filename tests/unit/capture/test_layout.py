"""open_capture: the right adapter or none, and captures that do not contradict themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kvq_cli.capture import ADAPTERS, Capture, Source, layout, open_capture
from kvq_cli.capture.adapter import Found
from kvq_cli.capture.binding import bound
from kvq_cli.capture.files import one_file
from kvq_cli.capture.header import Header
from kvq_cli.capture.layout import LayerShape
from kvq_cli.capture.slab import read_rows
from kvq_cli.errors import CaptureError, UsageError
from kvq_cli.words import DType, Role
from support.captures import (
    canonical_capture,
    kv_bits,
    per_layer_capture,
    safetensors_bytes,
    seed_of,
)

PLURAL = {"key": "keys", "value": "values"}
SPELLINGS = [
    ("layers.{layer}.{role}", {}),
    ("layers.{layer}.{role}", PLURAL),
    ("layer_{layer}_{role}", {}),
    ("layer_{layer}_{role}", PLURAL),
    ("past_key_values.{layer}.{role}", {}),
    ("past_key_values_{layer}_{role}", {}),
    ("{role}_cache.{layer}", {}),
    ("{role}_{layer}", {"key": "k", "value": "v"}),
]


def opened(tmp_path: Path, file: bytes, name: str | None = None) -> Capture:
    path = tmp_path / "a.safetensors"
    path.write_bytes(file)
    return open_capture(path, name)


def tensors(**shapes: tuple[int, ...] | tuple[str, tuple[int, ...]]) -> bytes:
    """Tensors of zeros; F16 unless said, double underscores become dots."""
    sizes = {"F16": 2, "F32": 4, "F64": 8, "U8": 1}
    table = {}
    for name, given in shapes.items():
        dtype, shape = given if isinstance(given[0], str) else ("F16", given)
        data = bytes(int(np.prod(shape)) * sizes[dtype])
        table[name.replace("__", ".")] = (dtype, shape, data)
    return safetensors_bytes(table)


def rows(capture: Capture, role: Role, batch: int, layer: int) -> np.ndarray:
    slab = capture.slabs[role, batch, layer]
    out = np.empty((slab.heads, slab.tokens, slab.channels), slab.dtype.bits)
    read_rows(capture.source, slab, range(slab.heads), 0, slab.tokens, out)
    return out


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_canonical(tmp_path: Path, batch: int | None) -> None:
    """`key` and `value` with or without batch give every layer's rows."""
    file = canonical_capture(layers=3, heads=2, tokens=5, channels=8, batch=batch, dtype="BF16")
    with opened(tmp_path, file) as capture:
        assert capture.layout == "canonical"
        assert capture.others == ()
        size = (8, DType.BF16)
        assert capture.layers == tuple(
            LayerShape(layer, batch or 1, 2, 5, size, size) for layer in range(3)
        )
        for role in Role:
            shape = (3, 2, 5, 8) if batch is None else (batch, 3, 2, 5, 8)
            bits = kv_bits(shape, "BF16", seed_of(role.word)).reshape(-1, 3, 2, 5, 8)
            for entry in range(batch or 1):
                for layer in range(3):
                    assert np.array_equal(rows(capture, role, entry, layer), bits[entry, layer])


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize(("spelling", "roles"), SPELLINGS)
def test_per_layer(tmp_path: Path, spelling: str, roles: dict[str, str], batch: int | None) -> None:
    """Every spelling is recognised, and layers may hold different numbers of tokens."""
    file = per_layer_capture(tokens=(3, 7), batch=batch, spelling=spelling, roles=roles)
    with opened(tmp_path, file) as capture:
        assert capture.layout == "hf"
        assert [shape.tokens for shape in capture.layers] == [3, 7]
        bits = kv_bits((batch or 1, 2, 7, 8), "F16", seed_of("value", 1))
        for entry in range(batch or 1):
            assert np.array_equal(rows(capture, Role.VALUE, entry, 1), bits[entry])


def test_layers_need_not_be_in_order(tmp_path: Path) -> None:
    """Layers are sorted by number, not by name or place, and may leave gaps."""
    file = tensors(k_10=(1, 2, 3), v_10=(1, 2, 3), k_2=(1, 4, 3), v_2=(1, 4, 3))
    with opened(tmp_path, file) as capture:
        assert [shape.layer for shape in capture.layers] == [2, 10]


def test_others(tmp_path: Path) -> None:
    """Tensors beside keys and values are kept in data order."""
    shape = (1, 1, 2, 3, 4)
    file = tensors(query=(1, 1, 4, 2, 4), key=shape, positions=("U8", (2,)), value=shape)
    with opened(tmp_path, file) as capture:
        assert [tensor.name for tensor in capture.others] == ["query", "positions"]


def test_roles_may_differ_in_channels_and_dtype(tmp_path: Path) -> None:
    """Keys and values agree in batch, heads and tokens only."""
    file = tensors(key=(1, 2, 3, 4), value=("F32", (1, 2, 3, 6)))
    with opened(tmp_path, file) as capture:
        size = LayerShape(0, 1, 2, 3, (4, DType.F16), (6, DType.F32))
        assert capture.layers == (size,)


def test_one_role(tmp_path: Path) -> None:
    """A key without a value is carried, and the user is told."""
    with opened(tmp_path, canonical_capture(roles=["key"])) as capture:
        assert capture.layers[0].value is None
        assert len(capture.slabs) == 2
        assert len(capture.notes) == 1


def test_unquantisable(tmp_path: Path) -> None:
    """Keys and values of another dtype are set apart from those that codecs take."""
    file = tensors(k_0=(1, 2, 3), v_0=("F64", (1, 2, 3)))
    with opened(tmp_path, file) as capture:
        assert [tensor.name for tensor in capture.unquantisable] == ["v_0"]
        assert capture.others == capture.unquantisable
        assert capture.layers[0].value is None
        assert capture.notes


@pytest.mark.parametrize(
    ("error", "file"),
    [
        # batch, heads, tokens
        ("E202", tensors(k_0=(2, 1, 2, 3), v_0=(1, 1, 2, 3))),
        ("E202", tensors(k_0=(1, 2, 3), v_0=(2, 2, 3))),
        ("E202", tensors(key=(1, 2, 3, 4), value=(1, 2, 2, 4))),
        # nothing in them
        ("E206", tensors(key=(1, 2, 0, 4), value=(1, 2, 0, 4))),
        ("E206", tensors(key=(1, 0, 2, 4))),
        ("E206", tensors(k_0=(1, 2, 3), v_0=(1, 2, 0))),
        ("E206", tensors(k_0=("F64", (0, 2, 3)))),
        ("E206", tensors(key=(0, 1, 2, 3, 4))),
        # no layout, or more than one
        ("E204", tensors()),
        ("E204", tensors(a=(1,), b=(2,), c=(3,), d=(4,), e=(5,), f=(6,), g=(7,), h=(8,))),
        ("E204", tensors(key=(2, 3, 4))),
        ("E204", tensors(key=(1, 1, 1, 1, 1, 1))),
        ("E204", tensors(k_0=(2, 3))),
        ("E204", tensors(k_00=(2, 3, 4))),
        ("E204", tensors(k_0=(1, 2, 3), layers__1__key=(1, 2, 3))),
        ("E204", tensors(layers__0__key=(1, 2, 3), layers__0__values=(1, 2, 3))),
        ("E204", tensors(key=(1, 2, 3, 4), value=(1, 2, 3, 4), k_0=(1, 2, 3))),
        # a sparse file may have any number of layers
        ("E207", tensors(key=(1 << 17, 1, 1, 1))),
        ("E207", tensors(key=(1 << 7, 1 << 15, 1, 1))),
    ],
)
def test_refuses(tmp_path: Path, error: str, file: bytes) -> None:
    """Contradictions, emptiness and doubt are refused, each under its id."""
    with pytest.raises(CaptureError) as refusal:
        opened(tmp_path, file)
    assert refusal.value.error_id == error


def test_role_and_layer_twice(tmp_path: Path) -> None:
    """Two tensors for the same role and layer are refused."""
    path = tmp_path / "a"
    path.write_bytes(tensors(a=(2, 1, 2, 3), b=(1, 2, 3)))
    with Source(path) as source:
        first, second = source.header.tensors
        bindings = [
            bound(first, Role.KEY, "LHTD", 0),
            bound(second, Role.KEY, "HTD", 1),
        ]
        with pytest.raises(CaptureError) as refusal:
            layout.bind(source, "canonical", Found(tuple(bindings)))
    assert refusal.value.error_id == "E202"
    assert refusal.value.tensor == "b"


def test_named_layout(tmp_path: Path) -> None:
    """A layout by name decides between two that fit, and must itself fit and exist."""
    file = tensors(key=(1, 2, 3, 4), k_0=(1, 2, 3))
    with opened(tmp_path, file, "hf") as capture:
        assert capture.layout == "hf"
        assert [tensor.name for tensor in capture.others] == ["key"]
    with pytest.raises(CaptureError) as refusal:
        opened(tmp_path, canonical_capture(), "hf")
    assert refusal.value.error_id == "E204"
    with pytest.raises(UsageError) as wrong:
        opened(tmp_path, file, "pickle")
    assert wrong.value.error_id == "E101"


def test_adapters_know_the_header_alone() -> None:
    """Every adapter of the closed table takes a header without tensors for none of its own."""
    empty = one_file(Header((), {}, b"", 0))
    assert all(each.recognise(empty) is None for each in ADAPTERS.values())


@pytest.mark.parametrize(
    ("stated", "axes"),
    [
        ("batch,layers,tokens,kv_heads,head_dim", "BLTHD"),
        (" batch, layers, kv_heads, tokens, head_dim", "BLHTD"),
        ("NHD", "BLHTD"),
        ("", "BLHTD"),
        ("batch,layers,kv_heads,head_dim,tokens", None),
        ("layers,kv_heads,tokens,head_dim", None),
        ("batch,kv_heads,tokens,head_dim", None),
        ("batch,batch,layers,kv_heads,tokens,head_dim", None),
    ],
)
def test_stated_axes(tmp_path: Path, stated: str, axes: str | None) -> None:
    """Metadata that spells the axes out is believed, or the capture is refused."""
    file = canonical_capture(metadata={"layout": stated})
    if axes is None:
        with pytest.raises(CaptureError) as refusal:
            opened(tmp_path, file)
        assert refusal.value.error_id == "E204"
    else:
        with opened(tmp_path, file) as capture:
            assert capture.bindings[0].axes == axes


def test_source_stays_the_callers(tmp_path: Path) -> None:
    """A source given by the caller is left open when its capture is refused."""
    path = tmp_path / "a"
    path.write_bytes(tensors(a=(1,)))
    with Source(path) as source:
        with pytest.raises(CaptureError):
            open_capture(source)
        source.check_unchanged()
    path.write_bytes(canonical_capture())
    with Source(path) as source:
        assert open_capture(source).source is source
