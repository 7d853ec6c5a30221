"""header: strict, total, and never laxer than the official parser."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.capture import gatekeeper
from kvq_cli.capture.header import MAX_SHOWN, Header, header_size, parse_header, shown
from kvq_cli.errors import CaptureError
from kvq_cli.words import ELEMENT_BITS
from support.captures import paint, raw_safetensors, safetensors_bytes

VECTORS = Path(__file__).parents[3] / "formats" / "vectors" / "capture"
SMALL = safetensors_bytes(
    {
        "key": ("F16", (1, 2, 3), paint((1, 2, 3), "F16")),
        "empty": ("F32", (0, 4), b""),
        "value": ("U8", (3,), paint((3,))),
    },
    {"model": "m"},
)


def cases(name: str) -> list[dict]:
    return json.loads((VECTORS / name).read_text())["cases"]


def file_of(case: dict) -> bytes:
    """The file that a recipe of formats/vectors/capture describes."""
    if "file_hex" in case:
        return bytes.fromhex(case["file_hex"])
    text = bytes.fromhex(case["header_hex"]) if "header_hex" in case else case["header"].encode()
    return raw_safetensors(text + b" " * case.get("spaces", 0), case["data"], case.get("length"))


def parse(file: bytes) -> Header:
    return parse_header(file, len(file))


@pytest.mark.parametrize("case", cases("headers-invalid.json"), ids=lambda case: case["name"])
def test_refuses(case: dict) -> None:
    """Every malformed header is refused with the error that its recipe names."""
    with pytest.raises(CaptureError) as refusal:
        parse(file_of(case))
    assert refusal.value.error_id == case["error"]
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("case", cases("headers-valid.json"), ids=lambda case: case["name"])
def test_accepts(case: dict) -> None:
    """Every valid header gives its tensors in data order, and the official parser agrees."""
    file = file_of(case)
    header = parse(file)
    base = 8 + int.from_bytes(file[:8], "little")
    found = [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [tensor.start - base, tensor.stop - base],
        }
        for tensor in header.tensors
    ]
    assert found == case["tensors"]
    assert header.metadata == case["metadata"]
    assert header.raw == file[:base]
    assert header.file_size == len(file)
    gatekeeper.check(header)


def test_every_truncation_is_refused() -> None:
    """No proper prefix of a file is a file."""
    parse(SMALL)
    for size in range(len(SMALL)):
        with pytest.raises(CaptureError) as refusal:
            parse(SMALL[:size])
        assert refusal.value.error_id == "E201"


def test_header_read_short() -> None:
    """Header bytes that the file has and the caller did not read are refused, not guessed."""
    with pytest.raises(CaptureError) as refusal:
        parse_header(SMALL[:40], len(SMALL))
    assert refusal.value.error_id == "E201"
    padded = raw_safetensors(b"{} ", 0)  # which is JSON without its last byte too
    with pytest.raises(CaptureError) as refusal:
        parse_header(padded[:-1], len(padded))
    assert refusal.value.error_id == "E201"
    parse_header(padded, len(padded))


@pytest.mark.parametrize("dtype", ELEMENT_BITS)
def test_every_dtype(dtype: str) -> None:
    """Eight elements of every dtype of the format take as many bytes as a one has bits."""
    entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, ELEMENT_BITS[dtype]]}
    header = parse(raw_safetensors(json.dumps({"a": entry}), ELEMENT_BITS[dtype]))
    assert header.tensors[0].nbytes == ELEMENT_BITS[dtype]
    gatekeeper.check(header)


def test_names_are_escaped() -> None:
    """A message shows no control character and no endless name."""
    assert shown("a\x1b\x7f\u009b") == "a\\u001b\\u007f\\u009b"
    assert len(shown("x" * 10_000)) == MAX_SHOWN + 3
    file = raw_safetensors(json.dumps({"\x1b[31m" * 90: 1}))
    with pytest.raises(CaptureError) as refusal:
        parse(file)
    assert "\x1b" not in str(refusal.value)


@pytest.mark.parametrize("length", [0, 1, MAX_SHOWN - 1, MAX_SHOWN])
def test_what_is_short_is_shown_whole(length: int) -> None:
    """Text up to the limit stays as it is, and has no mark behind it."""
    assert shown("x" * length) == "x" * length
    assert shown("x" * (MAX_SHOWN + 1)) == "x" * MAX_SHOWN + "..."


@pytest.mark.parametrize(
    ("prefix", "file_size", "found"),
    [
        (bytes(7), 100, "E201"),
        (bytes(8), 7, "E201"),
        (bytes(8), 8, 8),
        (b"\x02" + bytes(7), 10, 10),
        (b"\x02" + bytes(9), 10, 10),
        (b"\x03" + bytes(7), 10, "E201"),
        ((8 << 20).to_bytes(8, "little"), 1 << 40, 8 + (8 << 20)),
        ((8 << 20 | 1).to_bytes(8, "little"), 1 << 40, "E207"),
        ((8 << 20 | 1).to_bytes(8, "little"), (8 << 20) + 8, "E201"),
    ],
)
def test_the_length_of_a_header(prefix: bytes, file_size: int, found: int | str) -> None:
    """It lies in the file, to the last byte, and is at most 8 MiB."""
    if isinstance(found, int):
        assert header_size(prefix, file_size) == found
        return
    with pytest.raises(CaptureError) as refusal:
        header_size(prefix, file_size)
    assert refusal.value.error_id == found


def huge(shape: list[int], nbytes: int) -> Header:
    entry = {"dtype": "U8", "shape": shape, "data_offsets": [0, nbytes]}
    raw = raw_safetensors(json.dumps({"a": entry}))
    return parse_header(raw, len(raw) + nbytes)


def test_bits_are_counted_in_64() -> None:
    """A tensor of 2^63 bits is beyond the limit, one of a byte less is not."""
    for shape in ([(1 << 60) - 1], [1 << 59], [3, 1 << 58]):
        nbytes = math.prod(shape)
        assert huge(shape, nbytes).tensors[0].nbytes == nbytes
    for shape in ([1 << 60], [1 << 30, 1 << 30], [1 << 61]):
        with pytest.raises(CaptureError) as refusal:
            huge(shape, math.prod(shape))
        assert refusal.value.error_id == "E207"


def test_quotation_marks_are_counted() -> None:
    """2^18 of them are read, one more is beyond the limit."""
    text = b'{"__metadata__":{"a":"' + b'\\"' * ((1 << 18) - 6) + b'"}}'
    assert text.count(b'"') == 1 << 18
    assert parse(raw_safetensors(text, 0)).tensors == ()
    with pytest.raises(CaptureError) as refusal:
        parse(raw_safetensors(text.replace(b'"a"', b'"a\\""'), 0))
    assert refusal.value.error_id == "E207"


def test_the_number_of_lmcache_is_kept() -> None:
    """`fmt` of an entry is there; where it is missing there is none."""
    entries = {
        name: {"dtype": "U8", "shape": [1], "data_offsets": [at, at + 1], **more}
        for at, (name, more) in enumerate({"a": {"fmt": 7}, "b": {"fmt": 0}, "c": {}}.items())
    }
    header = parse(raw_safetensors(json.dumps(entries), 3))
    assert [tensor.form for tensor in header.tensors] == [7, 0, None]
    assert {tensor.file for tensor in header.tensors} == {0}


NAMES = st.text(max_size=4)
NUMBERS = st.one_of(st.integers(-1, 9), st.sampled_from([2**31, 2**63, 2**64, 1.0, True]))
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*ELEMENT_BITS, "F8E4M3FN", 1]),
        "shape": st.lists(NUMBERS, max_size=3),
        "data_offsets": st.lists(NUMBERS, min_size=1, max_size=3),
    },
    optional={"fmt": st.integers()},
)


@st.composite
def sound_headers(draw: st.DrawFn) -> tuple[dict, int]:
    """A header as a writer makes it; the tests damage it."""
    members: dict = {}
    at = 0
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        dtype = draw(st.sampled_from(list(ELEMENT_BITS)))
        shape = [*draw(st.lists(st.integers(0, 3), max_size=3)), 4]
        nbytes = ELEMENT_BITS[dtype] * shape[-1] // 8
        for length in shape[:-1]:
            nbytes *= length
        members[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    if draw(st.booleans()):
        members["__metadata__"] = draw(st.dictionaries(NAMES, NAMES, max_size=2))
    return members, at


@settings(deadline=None, max_examples=150)
@given(sound_headers(), st.text(" \n\t", max_size=3))
def test_agrees_with_the_official_parser(header: tuple[dict, int], space: str) -> None:
    """What a writer makes is accepted by both parsers with the same meaning."""
    members, size = header
    gatekeeper.check(parse(raw_safetensors(json.dumps(members) + space, size)))


@settings(deadline=None, max_examples=200)
@given(sound_headers(), st.data())
def test_never_laxer(header: tuple[dict, int], data: st.DataObject) -> None:
    """Whatever is left of a damaged header, kvq accepts it only if the official parser does."""
    members, size = header
    size += data.draw(st.integers(-1, 1))
    members |= data.draw(st.dictionaries(NAMES, ENTRIES, max_size=1))
    text = json.dumps(members, ensure_ascii=data.draw(st.booleans()))
    at = data.draw(st.integers(0, len(text)))
    drop = data.draw(st.integers(0, 1))
    text = text[:at] + data.draw(st.sampled_from(["", "", "-", "0", " ", '"'])) + text[at + drop :]
    file = raw_safetensors(text.encode(errors="replace"), max(0, size))
    try:
        parsed = parse(file)
    except CaptureError:
        return
    gatekeeper.check(parsed)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 90), st.booleans())
def test_total(data: bytes, size: int, framed: bool) -> None:
    """Any bytes give a header or a CaptureError."""
    file = raw_safetensors(b"{" + data) if framed else data
    for file_size in (len(file), size):
        try:
            parse_header(file, file_size)
        except CaptureError:
            continue
