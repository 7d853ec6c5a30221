"""mlx, mlx-0.31: which layers are bound, how many tokens count, and what the user is told."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.capture import ADAPTERS, Capture, open_capture
from kvq_cli.capture.files import one_file
from kvq_cli.capture.header import parse_header
from kvq_cli.capture.slab import read_rows
from kvq_cli.errors import CaptureError
from kvq_cli.words import Role
from support.captures import safetensors_bytes
from support.prompt_caches import layer, new_cache, old_cache, other, quantised, rows, scalar

GENERATIONS = {"mlx": new_cache, "mlx-0.31": old_cache}
each_generation = pytest.mark.parametrize("name", GENERATIONS)
NONE = ("F32", (0,), b"")
STATE = ("F32", (1, 3, 4), bytes(48))


def opened(tmp_path: Path, file: bytes) -> Capture:
    path = tmp_path / "cache.safetensors"
    path.write_bytes(file)
    return open_capture(path)


def tokens(capture: Capture) -> dict[int, int]:
    return {shape.layer: shape.tokens for shape in capture.layers}


def read(capture: Capture, role: Role, number: int) -> np.ndarray:
    slab = capture.slabs[role, 0, number]
    out = np.empty((slab.heads, slab.tokens, slab.channels), slab.dtype.bits)
    read_rows(capture.source, slab, range(slab.heads), 0, slab.tokens, out)
    return out


@pytest.mark.parametrize("count", [1, 5, 256])
@each_generation
def test_plain(name: str, count: int, tmp_path: Path) -> None:
    """Keys and values of every layer, and what the user said as identity."""
    layers = [layer(count, dtype="BF16") for _ in range(12)]
    file = GENERATIONS[name](layers, {"model": "m", "rope_state": "post", "note": "n"})
    with opened(tmp_path, file) as capture:
        assert capture.layout == name
        assert tokens(capture) == dict.fromkeys(range(12), count)
        assert capture.notes == ()
        assert capture.facts.rope_state == "post_rope"
        assert capture.identity == {
            "model": "m",
            "rope_state": "post",
            "engine": "mlx-lm",
            "cache_class": "KVCache",
        }
        for role in Role:
            found = read(capture, role, 11)
            assert np.array_equal(found, rows(layers[11], role.word, 11)[0])


def test_padded(tmp_path: Path) -> None:
    """The offset counts, each layer's own, and what lies behind is told."""
    layers = [layer(5, room=8), layer(1, room=256), layer(3, room=3)]
    with opened(tmp_path, new_cache(layers)) as capture:
        assert tokens(capture) == {0: 5, 1: 1, 2: 3}
        assert np.array_equal(read(capture, Role.VALUE, 0), rows(layers[0], "value", 0)[0, :, :5])
        assert [each.name for each in capture.others] == ["0.2", "1.2", "2.2"]
        (note,) = capture.notes
        assert note.startswith("2 of 3 layers have room for more")
        assert "(layer 0: 5, room 8)" in note


@pytest.mark.parametrize(
    ("offset", "told"),
    [
        (8, None),
        (9, "1 of 1 layers counted more tokens than they hold (layer 0: 9, room 8)"),
        (2**31 - 1, "counted more"),
        (0, "1 of 1 layers count no tokens (layer 0: 0, room 8)"),
        (-1, "count no tokens"),
        (4, "1 of 1 layers count fewer tokens than they hold (layer 0: 4, room 8)"),
    ],
)
def test_offsets_that_are_not_believed(offset: int, told: str | None, tmp_path: Path) -> None:
    """Where the offset cannot be true, or would lose numbers, all tokens count."""
    file = new_cache([layer(5, room=8, numbers=(offset,))])
    with opened(tmp_path, file) as capture:
        assert tokens(capture) == {0: 8}
        assert [told in note for note in capture.notes] == ([True] if told else [])


@pytest.mark.parametrize("role", ["key", "value"])
def test_keys_and_values_are_padded_together(role: str, tmp_path: Path) -> None:
    """Where only the values end in zeros, or only the keys, all tokens of the layer count."""
    padded, full = layer(5, room=8), layer(8, room=8)
    place = {"key": "0.0", "value": "0.1"}[role]
    more = {place: ("F16", full["shape"], rows(full, role, 0).tobytes())}
    with opened(tmp_path, new_cache([padded], more=more)) as capture:
        assert tokens(capture) == {0: 8}
        assert "not all that lies behind is zero" in capture.notes[0]


def test_a_negative_zero_is_no_padding(tmp_path: Path) -> None:
    """Bytes are zero, not numbers: -0 behind the tokens would not come back."""
    with opened(tmp_path, new_cache([layer(5, room=8, behind=0x8000)])) as capture:
        assert tokens(capture) == {0: 8}


@pytest.mark.parametrize(
    ("entry", "count"),
    [
        (("I64", (), (5).to_bytes(8, "little")), 5),
        (("U32", (1,), (5).to_bytes(4, "little")), 5),
        (("U64", (1, 1), (5).to_bytes(8, "little")), 5),
        (("U64", (), (2**64 - 1).to_bytes(8, "little")), 8),
        (("I32", (2,), bytes(8)), 8),
        (("I32", (0,), b""), 8),
        (("F32", (), bytes(4)), 8),
        (("U8", (), b"\5"), 8),
        (None, 8),
    ],
)
def test_odd_offsets(entry: tuple | None, count: int, tmp_path: Path) -> None:
    """Any integer of four or eight bytes counts; all else is no number, and the user is told."""
    told = layer(5, room=8, numbers=())
    file = new_cache([told], more={"0.2": entry} if entry else None)
    with opened(tmp_path, file) as capture:
        assert tokens(capture) == {0: count}
        silent = entry and entry[0] in ("I64", "U32", "U64")
        assert any("do not tell how many" in note for note in capture.notes) == (not silent)


@each_generation
def test_windows(name: str, tmp_path: Path) -> None:
    """Rotating layers beside others: tokens as they lie, and a word of caution."""
    # New: offset, keep, max_size, idx. Old: keep, max_size, offset, idx.
    full, few = ((90, 4, 6, 5), (3, 4, 6, 3)) if name == "mlx" else ((4, 6, 90, 5), (4, 6, 3, 3))
    layers = [
        layer(6, kind="RotatingKVCache", numbers=full),
        layer(90),
        layer(3, kind="RotatingKVCache", numbers=few),
    ]
    with opened(tmp_path, GENERATIONS[name](layers)) as capture:
        assert tokens(capture) == {0: 6, 1: 90, 2: 3}
        assert np.array_equal(read(capture, Role.KEY, 0), rows(layers[0], "key", 0)[0])
        (note,) = capture.notes
        assert "(layer 0: 90, room 6)" in note
        assert "not to be trusted" in note
        assert capture.identity["cache_class"] == "RotatingKVCache, KVCache"


def test_an_old_rotating_cache_with_room(tmp_path: Path) -> None:
    """The offset of the metadata counts like one of a tensor; an odd one does not."""
    for number, count in (("5", 5), ("05", 8), ("-5", 8), ("9" * 40, 8), ("", 8)):
        told = layer(5, room=8, kind="RotatingKVCache", numbers=(0, 8, number, 5))
        with opened(tmp_path, old_cache([told])) as capture:
            assert tokens(capture) == {0: count}
            assert len(capture.notes) == 1


@each_generation
def test_quantised(name: str, tmp_path: Path) -> None:
    """Nothing is bound; bits and groups are told, from tensors or from the metadata."""
    with opened(tmp_path, GENERATIONS[name]([quantised(5)] * 2)) as capture:
        assert capture.layout == name
        assert capture.bindings == ()
        (note,) = capture.notes
        assert note.startswith("2 of 2 layers are quantised already (4 bits, groups of 32 chann")
        assert capture.doubt is not None
        assert capture.doubt.startswith("it is quantised already")


def test_quantised_without_numbers(tmp_path: Path) -> None:
    """What is not told is left out of the note."""
    file = new_cache([quantised(5) | {"numbers": (5, 32)}, layer(5)])
    with opened(tmp_path, file) as capture:
        assert tokens(capture) == {1: 5}
        assert capture.doubt is None
        assert capture.notes == ("1 of 2 layers are quantised already, and are kept as they are",)


@each_generation
def test_other_classes(name: str, tmp_path: Path) -> None:
    """What is none of keys and values is kept beside those of the other layers."""
    layers = [
        other("ArraysCache", {"0.0": STATE, "0.1": STATE, "1": NONE, "2": NONE}),
        layer(5),
        other("CacheList", {"0.0.0": STATE, "0.1": ("I32", (2,), bytes(8))}),
        other("Mine\x1b", {"0": ("F16", (1, 2, 5, 8), bytes(160))}),
    ]
    with opened(tmp_path, GENERATIONS[name](layers)) as capture:
        assert tokens(capture) == {1: 5}
        assert capture.doubt is None
        assert "3 of 4 layers are none whose keys and values kvq knows" in capture.notes[0]
        assert capture.notes[0].endswith(": ArraysCache, CacheList, Mine\\u001b")
    with opened(tmp_path, GENERATIONS[name](layers[:1])) as capture:
        assert capture.doubt == "no keys and values that kvq knows are in layers of ArraysCache"


@pytest.mark.parametrize("kind", ["ChunkedKVCache", "ConcatenateKVCache", "BatchKVCache"])
@each_generation
def test_further_classes(name: str, kind: str, tmp_path: Path) -> None:
    """Their tokens are those of their own number."""
    numbers = {"ChunkedKVCache": (5, 8192, 0), "ConcatenateKVCache": (), "BatchKVCache": (1, 0, 5)}
    room = 5 if name == "mlx-0.31" or kind == "ConcatenateKVCache" else 8
    told = layer(5, room=room, kind=kind, numbers=numbers[kind])
    with opened(tmp_path, GENERATIONS[name]([told])) as capture:
        assert tokens(capture) == {0: 5}


@each_generation
def test_layers_that_hold_nothing(name: str, tmp_path: Path) -> None:
    """A layer that saw no token, and one of another rank, are kept with a note."""
    empty = other("KVCache", {"0": NONE, "1": NONE, "2": scalar(0)})
    flat = other("KVCache", {"0": ("F16", (2, 5, 8), bytes(160)), "1": NONE})
    with opened(tmp_path, GENERATIONS[name]([layer(5), empty, flat])) as capture:
        assert tokens(capture) == {0: 5}
        assert capture.notes == ("2 of 3 layers hold no keys and values, and are kept as they are",)


@each_generation
def test_missing_values(name: str, tmp_path: Path) -> None:
    """Keys without values are carried, and the user is told."""
    with opened(tmp_path, GENERATIONS[name]([layer(5), layer(5, roles=["key"])])) as capture:
        assert capture.notes == ("1 of 2 layers hold keys only: 1",)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("mlx", {"00.0": scalar(1)}),
        ("mlx", {"1.0": scalar(1)}),
        ("mlx", {"positions": scalar(1)}),
        ("mlx", {"-1.0": scalar(1)}),
        ("mlx", {"9999999.0": scalar(1)}),
        ("mlx-0.31", {"0": scalar(1)}),
        ("mlx-0.31", {"\u0660.0": scalar(1)}),
    ],
)
def test_other_names(name: str, more: dict, tmp_path: Path) -> None:
    """A tensor that is none of a layer's, and a layer told twice, make no prompt cache."""
    with pytest.raises(CaptureError) as refusal:
        opened(tmp_path, GENERATIONS[name]([layer(5)], more=more))
    assert refusal.value.error_id == "E204"


@pytest.mark.parametrize("wrong", [layer(5, heads=3), layer(6), layer(5, batch=2)])
def test_keys_and_values_that_contradict(wrong: dict, tmp_path: Path) -> None:
    """Heads, tokens and batch entries of a layer agree, or it is refused."""
    more = {"0.1": ("F16", wrong["shape"], rows(wrong, "value", 0).tobytes())}
    with pytest.raises(CaptureError) as refusal:
        opened(tmp_path, old_cache([layer(5)], more=more))
    assert refusal.value.error_id == "E202"


def test_what_the_user_says_comes_first(tmp_path: Path) -> None:
    """Facts that are told beside the file win over its own."""
    path = tmp_path / "cache"
    path.write_bytes(new_cache([layer(5)], {"model": "file"}))
    with open_capture(path, told={"model": "user"}) as capture:
        assert capture.identity["model"] == "user"


PLACES = st.sampled_from(["0.0", "0.1", "0.2", "0.3", "0.4", "1.0", "1.1", "1.2", "0.0.0", "x", ""])
ENTRIES = st.tuples(
    st.sampled_from(["F16", "F32", "I32", "U64", "U8", "F8_E4M3"]),
    st.lists(st.integers(0, 3), max_size=5),
)
TEXTS = st.sampled_from(["", "KVCache", "RotatingKVCache", "QuantizedKVCache", "{}", "5", "\ud7ff"])
SIZES = {"F16": 2, "F32": 4, "I32": 4, "U64": 8, "U8": 1, "F8_E4M3": 1}


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(PLACES, ENTRIES, max_size=6),
    st.dictionaries(st.sampled_from(["0.0", "0.0.1", "0.0.2", "1.0", "1.1", "2.1"]), TEXTS),
    TEXTS,
)
def test_total(
    tmp_path_factory: pytest.TempPathFactory, named: dict, said: dict, mark: str
) -> None:
    """Any header is recognised or not, and opened or refused with a declared error."""
    tensors = {
        name: (dtype, shape, bytes(int(np.prod(shape)) * SIZES[dtype]))
        for name, (dtype, shape) in named.items()
    }
    file = safetensors_bytes(tensors, {"2.0": mark, **said})
    header = parse_header(file, len(file))
    for adapter in ADAPTERS.values():
        adapter.recognise(one_file(header))
    with contextlib.suppress(CaptureError):
        opened(tmp_path_factory.mktemp("any"), file).source.close()
