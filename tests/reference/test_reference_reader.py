"""The reference reader against kvq: the same container, the same roots, the same bits."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.reader import Refused, read

from kvq_cli.pipeline import compress, decompress, inspect
from kvq_cli.profile import parse_profile
from support import surgery
from support.captures import canonical_capture, kv_bits, paint, per_layer_capture, safetensors_bytes

VECTORS = Path(__file__).parents[2] / "formats" / "vectors" / "container" / "valid"
VECTOR = {
    path.stem: base64.b64decode(json.loads(path.read_text())["container"])
    for path in sorted(VECTORS.glob("*.json"))
}


def tensors_of(capture):
    """Name to (dtype, shape, bytes), in data order."""
    length = int.from_bytes(capture[:8], "little")
    header = json.loads(capture[8 : 8 + length])
    header.pop("__metadata__", None)
    data = capture[8 + length :]
    ordered = sorted(header.items(), key=lambda member: member[1]["data_offsets"])
    return {
        name: (one["dtype"], one["shape"], data[slice(*one["data_offsets"])])
        for name, one in ordered
    }


def spoiled(capture, at, word):
    """The capture with another bit pattern at a byte of its data."""
    data = bytearray(capture)
    start = 8 + int.from_bytes(capture[:8], "little") + at
    data[start : start + len(word)] = word
    return bytes(data)


def with_extras():
    shape = (1, 2, 2, 30, 8)
    tensors = {
        "query": ("F32", (2**20 + 3,), (paint((2**20 + 3,), "F32"))),
        "key": ("BF16", shape, kv_bits(shape, "BF16", 1).tobytes()),
        "empty": ("I64", (0, 4), b""),
        "positions": ("U8", (2**22,), paint((2**22,))),
        "scalar": ("F64", (), bytes(range(8))),
    }
    return safetensors_bytes(tensors, {"model": "m", "rope_state": "pre", "prompt": "secret"})


LARGE = bytes.fromhex("ffff7f7f")  # the largest finite F32, little-endian
CAPTURES = {
    "f16": canonical_capture(tokens=40),
    "bf16": canonical_capture(tokens=40, channels=9, dtype="BF16"),
    "f32": canonical_capture(tokens=23, channels=5, dtype="F32", batch=None),
    "batch": canonical_capture(batch=2, heads=3, tokens=30),
    "layers": canonical_capture(layers=5, heads=3, tokens=11, channels=9),
    "one-token": canonical_capture(layers=1, heads=1, tokens=1, channels=1),
    "keys": canonical_capture(roles=["key"], tokens=30),
    "ragged": per_layer_capture(tokens=(40, 7, 1, 40), batch=2),
    "no-batch": per_layer_capture(tokens=(9, 30), batch=None, dtype="BF16"),
    "extras": with_extras(),
    "nan": spoiled(canonical_capture(tokens=40), 700, b"\x01\x7c\x00\xfc"),
    "large": spoiled(canonical_capture(tokens=30, dtype="F32"), 64, LARGE + b"\1\0\0\x80"),
    "zeros": safetensors_bytes({"key": ("F16", (1, 2, 30, 8), bytes(960))}),
}
OTHERS = {
    "int8-centred": {"name": "int8", "scale": "f16", "center": True},
    "fp8": {"name": "fp8_e5m2", "scale": "f32"},
    "fp8-centred": {"name": "fp8_e4m3", "scale": "f16", "center": True},
    "int4": {"name": "int4", "group": 64, "scale": "f32"},
    "int4-centred": {"name": "int4", "group": 32, "scale": "f32", "center": True},
    "int4-zeros": {"name": "int4", "group": 128, "scale": "f32", "zero_point": True},
    "kivi-2": {"name": "kivi", "bits": 2, "axis": "channel", "scale": "f32"},
    "kivi-3": {"name": "kivi", "bits": 3, "axis": "token", "scale": "f32"},
    "kivi-8": {"name": "kivi", "bits": 8, "axis": "channel", "group": 64, "scale": "f32"},
}
INT8 = [
    {"name": "int8", "axis": axis, "scale": scale}
    for axis in ("token", "channel")
    for scale in ("f32", "f16")
]
MIXED = {
    "page_tokens": 7,
    "rules": [
        {"role": "key", "layers": [[0, 1]], "codec": "raw"},
        {"role": "key", "heads": [[-1, None]], "tokens": [[2, 20]], "codec": INT8[3]},
        {"tokens": [[0, -5]], "codec": INT8[0]},
    ],
    "protected": {"first_tokens": 2, "last_tokens": 1, "layers": [[-1, None]], "heads": [[0, 1]]},
}
PROFILES = {
    "lossless": {"rules": []},
    "layers": {"rules": [], "page_layers": 2},
    "mixed-layers": {**MIXED, "page_layers": 3},
    "raw": {"rules": [{"codec": "raw"}], "storage": {"entropy": "none"}},
    "mixed": MIXED,
    "mixed-fixed": {**MIXED, "fixed_rate": True, "page_tokens": 256},
    **{
        f"int8-{codec['axis']}-{codec['scale']}": {"rules": [{"codec": codec}], "page_tokens": 16}
        for codec in INT8
    },
    **{
        name: {"rules": [{"codec": codec}], "page_tokens": 36, "fixed_rate": True}
        for name, codec in OTHERS.items()
    },
}


def profile(name):
    return parse_profile({"schema": "kvq_profile_v1", "name": name, **PROFILES[name]})


def packed(folder, capture, profiles, **options):
    """The container that kvq makes, and the file that it restores."""
    source, container, restored = (folder / name for name in ("source", "container", "restored"))
    source.write_bytes(capture)
    compress(source, container, profiles=profiles, threads=1, force=True, **options)
    decompress(container, restored, threads=1, force=True)
    return container.read_bytes(), restored.read_bytes()


@pytest.mark.parametrize("chosen", PROFILES)
@pytest.mark.parametrize("capture", CAPTURES)
def test_both_readers_restore_the_same_bits(capture, chosen, tmp_path):
    """The restored file is the same, and so is every tensor; lossless gives the original."""
    data, restored = packed(tmp_path, CAPTURES[capture], [profile(chosen)])
    container = read(data)
    assert container.source() == restored
    expected = {name: bits for name, (_, _, bits) in tensors_of(restored).items()}
    assert container.named() == expected
    if chosen in ("lossless", "raw", "layers"):
        assert restored == CAPTURES[capture]


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize(
    "name", ["int8", "fp8-e4m3", "fp8-e5m2", "int4", "int4-g64", "kivi-4bit", "kivi-2bit"]
)
def test_both_readers_agree_on_built_in_profiles(name, dtype, tmp_path):
    """Whole pages and a rest, with raw tokens at both ends where the profile says so."""
    capture = canonical_capture(layers=1, heads=2, tokens=430, channels=80, dtype=dtype)
    data, restored = packed(tmp_path, capture, [name])
    container = read(data)
    assert container.source() == restored
    codecs = {codec["name"] for codec in container.header.content["codecs"]}
    assert codecs - {"raw"}


@pytest.mark.parametrize("chosen", PROFILES)
def test_both_readers_see_the_same_container(chosen, tmp_path):
    """Roots and the number of pages are what `inspect` says, and what compress said."""
    source, path = tmp_path / "source", tmp_path / "container"
    source.write_bytes(CAPTURES["ragged"])
    made = compress(source, path, profiles=[profile(chosen)], threads=1)
    seen, container = inspect(path).found, read(path)
    roots = [f"blake3:{root.hex()}" for root in (container.content_root, container.file_root)]
    assert [made.content_root, made.file_root] == roots
    assert [seen["content_root"], seen["file_root"]] == roots
    assert made.pages == seen["page_count"] == len(container.pages)
    content = container.header.content
    assert (seen["parts"], seen["profiles"]) == (content["parts"], content["profiles"])


def test_a_non_finite_head_is_kept_raw(tmp_path):
    """Its pages say so, and only its own."""
    data, _ = packed(tmp_path, CAPTURES["nan"], [profile("int8-token-f32")])
    reasons = [page.reason for page in read(data).pages]
    assert reasons.count(4) == 1


def test_threads_change_no_byte(tmp_path):
    """One thread and three write the same file."""
    source, one, three = (tmp_path / name for name in ("source", "one", "three"))
    source.write_bytes(CAPTURES["ragged"])
    for path, threads in ((one, 1), (three, 3)):
        compress(source, path, profiles=[profile("mixed")], threads=threads)
    assert one.read_bytes() == three.read_bytes()
    assert read(one).source() == read(three.read_bytes()).source()


def test_kv_profiles_are_read(tmp_path):
    """A KV profile of the contract keeps its own digest; the other role has its own profile."""
    contract = json.loads((VECTORS.parents[1] / "contract" / "fibquant.json").read_text())
    known = contract["kv_profiles"][-1]["json"]
    known = json.loads(known) if isinstance(known, str) else known
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**known, "axis_policy": "raw"}))
    metadata = {"attention_kind": "mha", "query_heads": "1", "rope_state": "post"}
    capture = canonical_capture(
        layers=1, heads=1, tokens=4, channels=8, dtype="F32", metadata=metadata
    )
    data, restored = packed(tmp_path, capture, [str(path), "int8"])
    container = read(data)
    profiles = container.header.content["profiles"]
    assert [entry["roles"] for entry in profiles] == [["key"], ["value"]]
    assert restored == container.source()


@pytest.mark.parametrize("alignment", [64, 4096, 2**21])
def test_alignment_moves_bytes_and_nothing_else(alignment, tmp_path):
    """Any alignment is read, and content_root does not depend on it."""
    capture = CAPTURES["one-token"]
    plain, _ = packed(tmp_path, capture, ["lossless"])
    data, restored = packed(tmp_path, capture, ["lossless"], alignment=alignment)
    container = read(data)
    assert restored == container.source() == capture
    assert container.header.storage["alignment"] == alignment
    assert container.content_root == read(plain).content_root


@pytest.mark.parametrize("level", [1, 3, 19, 22])
def test_levels_change_no_content(level, tmp_path):
    """What zstd makes of it at any level is within the window, and the content the same."""
    capture = CAPTURES["extras"]
    data, restored = packed(tmp_path, capture, ["lossless"], level=level)
    container = read(data)
    assert restored == container.source() == capture
    assert container.header.storage["level"] == level


@pytest.mark.parametrize("tokens", [2048, 2049, 4100])
def test_many_pages_have_several_leaves(tokens, tmp_path):
    """One leaf for 4,096 pages, another for what is left."""
    capture = canonical_capture(layers=1, heads=1, tokens=tokens, channels=2)
    one = {"schema": "kvq_profile_v1", "name": "one", "page_tokens": 1}
    data, restored = packed(
        tmp_path, capture, [parse_profile({**one, "rules": [{"codec": "raw"}]})]
    )
    container = read(data)
    assert len(container.pages) == 2 * tokens
    assert restored == container.source() == capture


def test_pages_hold_the_bits_of_their_place(tmp_path):
    """A page's array is the slice of the capture that its record names."""
    data, _ = packed(tmp_path, CAPTURES["batch"], [profile("raw")])
    container = read(data)
    bits = kv_bits((2, 2, 3, 30, 8), "F16", 1)
    for page in container.pages:
        heads = container.header.content["head_sets"][page.head_set]
        place = bits[page.batch, page.layer, heads, page.start : page.start + page.tokens]
        assert page.role == 0 or np.array_equal(page.bits, place)


@pytest.mark.parametrize("name", ["raw", "extras"])
def test_every_flipped_bit_is_found(name):
    """One flipped bit in any byte of the file is refused."""
    for at in range(len(VECTOR[name])):
        with pytest.raises(Refused):
            read(surgery.operate(VECTOR[name], [{"flip": at, "mask": 1 << at % 8}]))


def test_every_truncation_is_found():
    """A file that ends early is refused, wherever it ends."""
    for length in range(len(VECTOR["raw"])):
        with pytest.raises(Refused):
            read(VECTOR["raw"][:length])


def places(value, pointer=""):
    """JSON pointers of everything below a value."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for key, member in members:
        yield f"{pointer}/{key}"
        if isinstance(member, dict | list):
            yield from places(member, f"{pointer}/{key}")


PLACES = {
    name: sorted(places(surgery.take_apart(data)["header"], "/header"))
    for name, data in VECTOR.items()
}
JUNK = st.one_of(
    st.sampled_from(
        [None, True, -1, 0, 1, 2**16, 2**32, 2**40, 2**64, 1.5, -0.0, "", "key", "HTD"]
    ),
    st.sampled_from([[], {}, [0], [[0, 1]], [[0, 65536]], [1, 0], [None], {"a": 1}, "µ"]),
)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_header_of_nonsense_is_read_or_refused(draw):
    """Whatever member of a well signed header is nonsense, nothing but Refused is raised."""
    name = draw.draw(st.sampled_from(sorted(VECTOR)))
    body = copy.deepcopy(surgery.take_apart(VECTOR[name]))
    holder, key = surgery.find(body, draw.draw(st.sampled_from(PLACES[name])))
    holder[key] = draw.draw(JUNK)
    try:
        read(surgery.put_together(body))
    except Refused as refusal:
        assert str(refusal)  # noqa: PT017 - not raising is as good
