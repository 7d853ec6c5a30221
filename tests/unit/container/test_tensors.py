"""tensors: names of files, and axes of rows, that a header may and may not state."""

from __future__ import annotations

import pytest

from kvq_cli.errors import ContainerError
from support.manifests import changed, header_of, read

RAW = header_of("raw")
BOTH = header_of("folder")  # THRD: T 5, H 2, R 2, D 4
BLOCKS = header_of("packed-blocks")  # TRDHdtu,TRtHuDd
LONG = "x" * 255
NAMES_THAT_ARE_READ = [
    ["a"],
    ["a", "b"],
    ["a/b", "a/c", "b"],
    ["a.b", "a/b"],
    ["...", "..a", ".a", "a b"],
    [LONG],
    ["é" * 127 + "a"],
    [f"{LONG}/{'y' * 254}/z"],
    [f"{number:04}" for number in range(4096)],
]
NAMES_THAT_ARE_REFUSED = [
    [],
    ["b", "a"],
    ["a", "a"],
    ["a", "c", "b"],
    ["a", "a/b"],
    ["a", "a/b/c"],
    *([name] for name in ("", ".", "..", "a/./b", "a/../b", "./a", "../a", "a/.", "a/..")),
    *([name] for name in ("a//b", "/a", "a/", "/", "a\\b", "a\0", "a\n", "a\x7f", "a\u200e")),
    [LONG + "x"],
    ["é" * 128],
    [f"{LONG}/{'y' * 254}/zz"],
    [f"{number:04}" for number in range(4097)],
]


def files(names):
    return changed(RAW, files=[{"name": name, "digest": None} for name in names])


@pytest.mark.parametrize("names", NAMES_THAT_ARE_READ, ids=range(len(NAMES_THAT_ARE_READ)))
def test_names_that_are_read(names):
    """In ascending order, inside the folder, up to 512 characters and 255 bytes a step."""
    assert [file.name for file in read(files(names)).files] == names


@pytest.mark.parametrize("names", NAMES_THAT_ARE_REFUSED, ids=range(len(NAMES_THAT_ARE_REFUSED)))
def test_names_that_are_refused(names):
    """Out of order, out of the folder, or too long."""
    with pytest.raises(ContainerError) as refusal:
        read(files(names))
    assert refusal.value.error_id == "E304"


def rows(header, axes, **lengths):
    stated = header["content"]["tensors"][0]["rows"]["lengths"] | lengths
    return changed(
        header,
        tensors__0__rows__axes=axes,
        tensors__0__rows__lengths={key: each for key, each in stated.items() if each},
    )


@pytest.mark.parametrize(
    "header",
    [
        rows(BOTH, "THRD"),
        rows(BOTH, "RTHD"),
        rows(BOTH, "THRD,THRD"),
        rows(BOTH, "TRHD,TRDH"),
        rows(BOTH, "BLHTRD", B=1, L=3),
        rows(BLOCKS, "TRtHuDd"),
        rows(BLOCKS, "TRDHdtu,TRtHuDd"),
        rows(BLOCKS, "TLRDHdtu,TLRtHuDd", L=1),
    ],
    ids=range(8),
)
def test_axes_that_are_read(header):
    """One order, or two that agree up to R."""
    rows_ = header["content"]["tensors"][0]["rows"]
    assert read(header).tensors[0].rows.to_json() == rows_


@pytest.mark.parametrize(
    "header",
    [
        rows(BOTH, "THRD,HTRD"),
        rows(BOTH, "TRHD,THRD"),
        rows(BOTH, "THRD,TRHD"),
        rows(BOTH, "RTHD,TRHD"),
        rows(BOTH, "TRHD,TRHT"),
        rows(BOTH, "TRHT,TRHD"),
        rows(BOTH, "TRHD,TRHX"),
        rows(BOTH, "TRHD,TRHDD"),
        rows(BOTH, "TRHDD,TRHD"),
        rows(BOTH, "THRD,THRD,THRD"),
        rows(BOTH, "THRD,"),
        rows(BOTH, "THD", R=0),
        rows(BOTH, "THD"),
        rows(BOTH, "THRD", R=1),
        rows(BOTH, "THRD", R=3),
        rows(BOTH, "THRD", L=1),
        rows(BOTH, "LTHRD"),
        rows(BOTH, "THRD,TRD"),
        rows(BLOCKS, "TRDLHdtu,TRLtHuDd", L=1),
        rows(BLOCKS, "TRLtHuDd,TRDLHdtu", L=1),
        rows(BLOCKS, "DTRHdtu"),
        rows(BLOCKS, "RHTtuDd"),
        rows(BLOCKS, "RTtHuDd", R=1),
        rows(RAW, "RLHTD", R=2),
        rows(RAW, "RLHTD", R=1),
        rows(RAW, "LHTD,LHTD"),
    ],
    ids=range(26),
)
def test_axes_that_are_refused(header):
    """A letter twice, missing or unknown; R in the wrong place, number or order."""
    with pytest.raises(ContainerError) as refusal:
        read(header)
    assert refusal.value.error_id == "E304"


@pytest.mark.parametrize(("tokens", "good"), [(11, True), (12, True), (13, False)])
def test_room_for_tokens(tokens, good):
    """No more than T, t and u give."""
    header = changed(BLOCKS, tensors__0__rows__tokens=tokens)
    if good:
        assert read(header).tensors[0].rows.tokens == tokens
    else:
        with pytest.raises(ContainerError):
            read(header)


@pytest.mark.parametrize(("tokens", "good"), [(1 << 40, True), ((1 << 40) + 1, False)])
def test_the_most_tokens(tokens, good):
    """2^40, even where there is room for more."""
    header = changed(rows(RAW, "LHTtD", T=1 << 40, t=2), tensors__0__rows__tokens=tokens)
    if good:
        assert read(header).tensors[0].rows.tokens == tokens
    else:
        with pytest.raises(ContainerError):
            read(header)
