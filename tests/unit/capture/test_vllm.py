"""vllm and lmcache: which layout a dump has, where its rows lie, and what is in doubt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.capture import ADAPTERS, Capture, open_capture
from kvq_cli.capture.files import File, Files
from kvq_cli.capture.header import parse_header
from kvq_cli.capture.slab import read_rows
from kvq_cli.errors import CaptureError
from kvq_cli.words import ELEMENT_BITS, Role
from support.captures import (
    kv_bits,
    lmcache_file,
    raw_safetensors,
    safetensors_bytes,
    seed_of,
    vllm_files,
    write_folder,
)

NAMED = ["vllm", "vllm_split", "vllm_cpu"]
HEADS = {"kv_heads": "2"}
TOLD = {"vllm": {}, "vllm_split": HEADS, "vllm_cpu": {"block_size": "4"}, "vllm_mla": {}}


def opened(path: Path, layout: str | None = None, **told: str) -> Capture:
    return open_capture(path, layout, told)


def rows(capture: Capture, role: Role, layer: int) -> np.ndarray:
    slab = capture.slabs[role, 0, layer]
    out = np.empty((slab.heads, slab.tokens, slab.channels), slab.dtype.bits)
    read_rows(capture.source, slab, range(slab.heads), 0, slab.tokens, out)
    return out


def check_rows(capture: Capture, layers: list[int], **lengths: int) -> None:
    """The rows are those that the recipe states."""
    assert capture.doubt is None
    assert [layer.layer for layer in capture.layers] == layers
    shape = tuple(({"heads": 2, "tokens": 8, "channels": 4} | lengths).values())
    for layer in layers:
        for role in Role:
            dtype = str(capture.slabs[role, 0, layer].dtype)
            bits = kv_bits(shape, dtype, seed_of(role.word, layer))
            np.testing.assert_array_equal(rows(capture, role, layer), bits)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("layout", NAMED)
def test_named(tmp_path: Path, layout: str, dtype: str) -> None:
    """The named layout binds both roles of every layer, in order of their numbers."""
    write_folder(tmp_path, vllm_files(layout, layers=(0, 2, 10), dtype=dtype))
    with opened(tmp_path, layout, **TOLD[layout]) as capture:
        check_rows(capture, [0, 2, 10])


@pytest.mark.parametrize("block", [2, 4, 8, 16])
@pytest.mark.parametrize("channels", [8, 24])
def test_blocks(tmp_path: Path, block: int, channels: int) -> None:
    """Blocks of any size that rows hold whole numbers of."""
    write_folder(tmp_path, vllm_files("vllm_cpu", tokens=32, channels=channels, block=block))
    with opened(tmp_path, "vllm_cpu", block_size=str(block)) as capture:
        check_rows(capture, [0, 1], tokens=32, channels=channels)


def test_usual_block(tmp_path: Path) -> None:
    """128 tokens make a block where nobody tells."""
    write_folder(tmp_path, vllm_files("vllm_cpu", tokens=256, channels=64, block=128))
    with opened(tmp_path, "vllm_cpu") as capture:
        check_rows(capture, [0, 1], tokens=256, channels=64)


@pytest.mark.parametrize(
    ("told", "lengths"),
    [
        ({"block_size": "3"}, {}),
        ({"block_size": "16"}, {}),
        ({}, {}),
        ({"block_size": "8"}, {"channels": 6}),
    ],
)
def test_blocks_that_do_not_fit(tmp_path: Path, told: dict, lengths: dict) -> None:
    """Tokens that are no whole blocks, and rows that are no whole channels, are in doubt."""
    write_folder(tmp_path, vllm_files("vllm_cpu", **lengths))
    with opened(tmp_path, "vllm_cpu", **told) as capture:
        assert "block_size" in (capture.doubt or "")


@pytest.mark.parametrize(
    "told", [{"kv_heads": "3"}, {"head_dim": "4"}, {"kv_heads": "3", "head_dim": "4"}]
)
def test_split_by_heads(tmp_path: Path, told: dict[str, str]) -> None:
    """[2, T, C] with heads or channels told needs no name."""
    write_folder(tmp_path, vllm_files("vllm_split", heads=3))
    with opened(tmp_path, **told) as capture:
        assert capture.layout == "vllm_split"
        check_rows(capture, [0, 1], heads=3)


def test_mla(tmp_path: Path) -> None:
    """[T, C] is bound as keys of one head, and the user is told."""
    write_folder(tmp_path, vllm_files("vllm_mla", heads=3))
    for name in (None, "vllm_mla"):
        with opened(tmp_path, name) as capture:
            assert capture.layout == "vllm_mla"
            shape = capture.layers[0]
            assert (shape.heads, shape.tokens, shape.key[0], shape.value) == (1, 8, 12, None)
            assert any("MLA" in note for note in capture.notes)


@pytest.mark.parametrize("layout", [*NAMED, "vllm_mla"])
def test_metadata_names_it(tmp_path: Path, layout: str) -> None:
    """Files that name their layout, and what it needs, are read without a word."""
    files = vllm_files(layout, metadata={"layout": layout, **TOLD[layout]})
    with opened(write_folder(tmp_path, files)) as capture:
        assert (capture.layout, capture.doubt) == (layout, None)


@pytest.mark.parametrize(
    ("layout", "words"),
    [("vllm", "--layout vllm"), ("vllm_cpu", "vllm_cpu"), ("vllm_split", "kv_heads")],
)
def test_undecided(tmp_path: Path, layout: str, words: str) -> None:
    """Without a word nothing is bound, all is kept, and the choices are named."""
    write_folder(tmp_path, vllm_files(layout))
    with opened(tmp_path) as capture:
        assert (capture.layout, capture.bindings) == ("vllm_dump", ())
        assert len(capture.others) == 2
        assert words in (capture.doubt or "")
        assert any(capture.doubt in note for note in capture.notes)


@pytest.mark.parametrize("told", [{"kv_heads": "8"}, {"head_dim": "2"}])
def test_two_tokens_are_not_two_roles(tmp_path: Path, told: dict[str, str]) -> None:
    """[2, 8, 4] is two tokens of 8 heads, or 8 tokens in two roles; what fits both decides not."""
    write_folder(tmp_path, vllm_files("vllm", heads=8, tokens=2, channels=2))
    with opened(tmp_path, **told) as capture:
        assert capture.doubt is not None
    with opened(tmp_path, "vllm", **told) as capture:
        check_rows(capture, [0, 1], heads=8, tokens=2, channels=2)


def test_heads_that_do_not_divide(tmp_path: Path) -> None:
    write_folder(tmp_path, vllm_files("vllm_split"))
    with opened(tmp_path, "vllm_split", kv_heads="3") as capture:
        assert "kv_heads" in (capture.doubt or "")
    with opened(tmp_path, "vllm_split") as capture:
        assert "heads are not told" in (capture.doubt or "")


NAMES = [
    "language_model.model.layers.{}.self_attn.attn.safetensors",
    "layers.{}.safetensors",
    "a b\u00e9.layers.{}.x.safetensors",
    "sub/model.layers.{}.self_attn.attn.safetensors",
    "layers.7.x/model.layers.{}.self_attn.attn.safetensors",
    "decoder_layers.{}.attn.safetensors",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(tmp_path: Path, name: str) -> None:
    """The number behind `layers.` counts, whatever is around it, and folders do not."""
    write_folder(tmp_path, vllm_files(name=name, layers=(0, 3)))
    with opened(tmp_path, "vllm") as capture:
        check_rows(capture, [0, 3])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model.h.0.attn.safetensors"], "does not tell one layer"),
        (["sublayers.0.safetensors"], "does not tell one layer"),
        (["layers.00.x.safetensors"], "does not tell one layer"),
        (["layers.0.layers.1.safetensors"], "does not tell one layer"),
        (["layers.0.self_attn.safetensors", "layers.0.cross_attn.safetensors"], "layer 0"),
    ],
)
def test_names_in_doubt(tmp_path: Path, names: list[str], words: str) -> None:
    (file,) = vllm_files(layers=(0,)).values()
    write_folder(tmp_path, dict.fromkeys(names, file))
    for layout in (None, "vllm"):
        with opened(tmp_path, layout) as capture:
            assert words in (capture.doubt or "")


def test_a_single_file(tmp_path: Path) -> None:
    """A file alone has no name, so nobody knows its layer."""
    path = tmp_path / "model.layers.0.self_attn.attn.safetensors"
    path.write_bytes(vllm_files()[path.name])
    for layout in (None, "vllm"):
        with opened(path, layout) as capture:
            assert "folder" in (capture.doubt or "")


@pytest.mark.parametrize("layout", [None, "vllm"])
def test_several_captures(tmp_path: Path, layout: str | None) -> None:
    """Folders side by side are captures of their own; two are named."""
    for name in ("b", "a\x07", "c"):
        write_folder(tmp_path / name, vllm_files())
    with pytest.raises(CaptureError) as refusal:
        opened(tmp_path, layout)
    assert refusal.value.error_id == "E204"
    assert "3 folders" in str(refusal.value) or "no file name" in str(refusal.value)
    for path in (tmp_path / "a\x07").iterdir():
        path.unlink()
    with pytest.raises(CaptureError, match='"b" and "c"'):
        opened(tmp_path, layout)


def test_a_parent_of_one(tmp_path: Path) -> None:
    """A folder above the one with files is the capture too, with what else is in it."""
    write_folder(tmp_path, {"x/970a/" + name: file for name, file in vllm_files().items()})
    write_folder(tmp_path, {"x/config.json": b"{}", "readme": b""})
    with opened(tmp_path, "vllm") as capture:
        check_rows(capture, [0, 1])
        assert len(capture.source.files.files) == 4


def test_unlike_layers(tmp_path: Path) -> None:
    """Layers may differ in heads, tokens and dtype; unlike numbers of dimensions are in doubt."""
    write_folder(tmp_path, vllm_files(layers=(0,)))
    write_folder(tmp_path, vllm_files(layers=(1,), heads=3, tokens=16, dtype="F16"))
    with opened(tmp_path, "vllm") as capture:
        assert [(each.heads, each.tokens) for each in capture.layers] == [(2, 8), (3, 16)]
    write_folder(tmp_path, vllm_files("vllm_mla", layers=(2,)))
    with opened(tmp_path) as capture:
        assert "no layout of vLLM" in (capture.doubt or "")
    with pytest.raises(CaptureError):
        opened(tmp_path, "vllm")


def test_other_tensors_and_dtypes(tmp_path: Path) -> None:
    """What is no kv_cache is carried; one of 8-bit floats is set apart."""
    write_folder(tmp_path, vllm_files())
    write_folder(
        tmp_path,
        {
            "layers.2.x.safetensors": safetensors_bytes(
                {"kv_cache": ("F8_E4M3", (8, 2, 8), bytes(128))}
            )
        },
    )
    write_folder(tmp_path, {"stray.safetensors": safetensors_bytes({"w": ("F32", (1,), bytes(4))})})
    with opened(tmp_path, "vllm") as capture:
        check_rows(capture, [0, 1])
        assert [each.name for each in capture.unquantisable] == ["kv_cache"]
        assert len(capture.others) == 2


def test_nothing_in_it(tmp_path: Path) -> None:
    """A layer of no tokens is refused where it is named."""
    empty = safetensors_bytes({"kv_cache": ("F16", (0, 2, 8), b"")})
    write_folder(tmp_path, {"layers.0.x.safetensors": empty})
    with pytest.raises(CaptureError) as refusal:
        opened(tmp_path, "vllm")
    assert refusal.value.error_id == "E206"


@pytest.mark.parametrize("folder", [False, True])
def test_lmcache(tmp_path: Path, folder: bool) -> None:
    """Heads as told, in a file or in a folder with the side-car."""
    file = lmcache_file(layers=3, heads=2)
    write_folder(
        tmp_path, {"a.kvcache.safetensors": file, "a.kvcache.safetensors.metadata": file[:4096]}
    )
    path = tmp_path if folder else tmp_path / "a.kvcache.safetensors"
    with opened(path) as capture:
        assert (capture.layout, capture.doubt is None) == ("lmcache", False)
        assert "kv_heads" in capture.doubt
    for told in (HEADS, {"head_dim": "4"}):
        with opened(path, **told) as capture:
            check_rows(capture, [0, 1, 2])


@pytest.mark.parametrize("members", [{}, {"fmt": 0}, {"fmt": 2}, {"__metadata__": {}}])
def test_lmcache_of_another_form(tmp_path: Path, members: dict) -> None:
    (tmp_path / "a").write_bytes(lmcache_file(members=members))
    with opened(tmp_path / "a", **HEADS) as capture:
        assert "fmt" in (capture.doubt or "")


def test_lmcache_chunks(tmp_path: Path) -> None:
    """Several chunks have no order."""
    write_folder(tmp_path, dict.fromkeys(["a.safetensors", "b.safetensors"], lmcache_file()))
    with opened(tmp_path, **HEADS) as capture:
        assert "2 chunks" in (capture.doubt or "")


def test_lmcache_of_another_shape(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(lmcache_file(channels=5))
    with opened(tmp_path / "a", kv_heads="3") as capture:
        assert "not [2, layers, tokens" in (capture.doubt or "")


FILE_NAMES = st.sampled_from(
    [
        "model.layers.0.a",
        "layers.1.b",
        "layers.99999.c",
        "layers.999999.c",
        "x/layers.2.d",
        "y",
        "layers.3",
    ]
)
TENSORS = st.dictionaries(
    st.sampled_from(["kv_cache", "kvcache", "key", "layers.0.key", "w"]),
    st.tuples(
        st.sampled_from(["F16", "BF16", "F8_E4M3", "U8"]),
        st.lists(st.integers(0, 4), max_size=5),
        st.sampled_from([{}, {"fmt": 1}, {"fmt": 7}, {"__metadata__": {"a": "b"}}]),
    ),
    max_size=3,
)
WORDS = st.sampled_from(
    ["", "0", "1", "2", "4", "07", "vllm", "vllm_split", "vllm_cpu", "vllm_mla", "batch"]
)
TOLD_ANY = st.dictionaries(
    st.sampled_from(["layout", "kv_heads", "head_dim", "block_size"]), WORDS, max_size=4
)


def header_of(tensors: dict, metadata: dict[str, str]) -> File:
    at, members = 0, {"__metadata__": metadata}
    for name, (dtype, shape, added) in tensors.items():
        size = int(np.prod(shape, dtype=object)) * ELEMENT_BITS[dtype] // 8
        members[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size], **added}
        at += size
    raw = raw_safetensors(json.dumps(members))
    return File(None, raw, parse_header(raw, len(raw) + at))


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(FILE_NAMES, TENSORS, min_size=1, max_size=3), TOLD_ANY, TOLD_ANY, st.booleans()
)
def test_no_header_is_too_much(tensors: dict, metadata: dict, told: dict, single: bool) -> None:
    """Any header and any word give bindings that fit, a doubt, nothing, or a CaptureError."""
    made = {name: header_of(each, metadata) for name, each in tensors.items()}
    named = [
        File(f"{name}.safetensors", each.head, each.header) for name, each in sorted(made.items())
    ]
    files = Files(list(made.values())[:1] if single else named)
    files.tell(told)
    for adapter in ADAPTERS.values():
        try:
            found = adapter.recognise(files)
        except CaptureError:
            continue
        for each in found.bindings if found else ():
            assert np.prod(list(each.lengths.values()), dtype=object) == np.prod(
                each.tensor.shape, dtype=object
            )
