"""audit and coverage: what is wrong between chunks is told where it is noticed.

Vectors say with which id a reader refuses; here is where kvq finds it, and whether it does so
without decoding anything (`verify --quick`), which leaves page bits and content_root alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from kvq_cli.container import index
from kvq_cli.container.audit import Audit
from kvq_cli.container.chunk import HEAD, INDX, TABL, TENS, ChunkHeader
from kvq_cli.container.manifest import Manifest
from kvq_cli.errors import ContainerError
from kvq_cli.pipeline import verify
from support.manifests import changed, container_of, header_of, read
from support.surgery import operate

FOLDER = Path(__file__).parents[3] / "formats" / "vectors" / "container" / "invalid"

# Id and offset of the refusal by verify, and by verify --quick.
FOUND: Final = {
    ("chunks", 9): (("E304", 2176), None),  # packed length one too large
    ("chunks", 20): (("E304", 1856), ("E304", 1856)),  # no HEAD
    ("chunks", 21): (("E304", 2176), ("E304", 2176)),  # HEAD twice
    ("chunks", 22): (("E304", 1856), ("E304", 1856)),  # HEAD after a page
    ("chunks", 25): (("E303", 2368), ("E303", 2368)),  # one more block of padding
    ("chunks", 33): (("E304", 2368), ("E304", 2304)),  # TENS of a tensor that does not exist
    ("chunks", 35): (("E304", 2368), ("E304", 2304)),  # TENS that does not start at 0
    ("chunks", 36): (("E304", 2304), ("E304", 2304)),  # TENS in another order
    ("chunks", 37): (("E304", 2816), ("E304", 2816)),  # TENS that is missing
    ("chunks", 38): (("E304", 2816), ("E304", 2816)),  # TENS twice
    ("chunks", 39): (("E304", 2880), ("E304", 2816)),  # TENS of an empty tensor
    ("chunks", 40): (("E304", 2880), ("E304", 2816)),  # TENS shorter than its tensor
    ("chunks", 41): (("E304", 2880), ("E304", 2816)),  # TENS longer than its tensor
    ("chunks", 42): (("E304", 2880), ("E304", 2816)),  # TENS cut in two
    ("chunks", 43): (("E304", 2816), ("E304", 2816)),  # TENS after a page
    ("index", 1): (("E304", 2560), ("E304", 2560)),  # leaf entry of another offset
    ("index", 2): (("E304", 2560), ("E304", 2560)),  # leaf entry of another stored
    ("index", 3): (("E304", 2560), ("E304", 2560)),  # leaf entry of another packed
    ("index", 4): (("E304", 2560), ("E304", 2560)),  # leaf entry of another record
    ("index", 5): (("E304", 2560), ("E304", 2560)),  # leaf entry of another sequence
    ("index", 6): (("E304", 2560), ("E304", 2560)),  # leaf entry of another zero
    ("index", 7): (("E303", 2560), None),  # leaf entry of another packed digest
    ("index", 8): (("E304", 2560), ("E304", 2560)),  # leaf entries swapped
    ("index", 9): (("E304", 2560), ("E304", 2560)),  # leaf count too small
    ("index", 12): (("E304", 2560), ("E304", 2560)),  # leaf that leaves out a page
    ("index", 14): (("E304", 2560), ("E304", 2560)),  # leaf of another first page
    ("leaves", 1): (("E304", 2560), ("E304", 2560)),  # leaf of the second 4,096 pages
    ("index", 17): (("E304", 2560), ("E304", 2560)),  # leaf missing
    ("index", 18): (("E304", 2816), ("E304", 2816)),  # leaf after the first of two pages
    ("index", 19): (("E304", 2944), ("E304", 2944)),  # empty leaf
    ("index", 21): (("E304", 2944), ("E304", 2944)),  # root entry of another offset
    ("index", 22): (("E304", 2944), ("E304", 2944)),  # root entry of another stored
    ("index", 23): (("E304", 2944), ("E304", 2944)),  # root entry of another first
    ("index", 24): (("E304", 2944), ("E304", 2944)),  # root entry of another count
    ("index", 25): (("E304", 2944), ("E304", 2944)),  # root entry of another sequence
    ("index", 26): (("E304", 2944), ("E304", 2944)),  # root entry of another digest
    ("index", 27): (("E304", 2944), ("E304", 2944)),  # root count too large
    ("index", 28): (("E304", 2944), ("E304", 2944)),  # root whose first is not zero
    ("index", 30): (("E304", 2944), ("E304", 2944)),  # root that leaves out its leaf
    ("footer", 1): (("E304", 2944), ("E304", 2944)),  # another root
    ("footer", 3): (("E304", 2944), ("E304", 2944)),  # another chunks
    ("footer", 5): (("E304", 3264), ("E304", 3264)),  # another pages
    ("footer", 6): (("E303", 3264), None),  # another content_root
    ("footer", 7): (("E303", 3264), ("E303", 3264)),  # another file_root
    ("tables", 17): (
        ("E304", 2176),
        ("E304", 2176),
    ),  # a chunk of a table that the header does not have
    ("tables", 18): (("E304", 4864), ("E304", 4864)),  # first table is missing
    ("tables", 19): (("E304", 5504), ("E304", 5504)),  # last table is missing
    ("tables", 20): (("E304", 4864), ("E304", 4864)),  # tables in another order than the header's
    ("tables", 21): (("E304", 5696), ("E304", 5696)),  # a table twice
    ("tables", 22): (("E304", 6144), ("E304", 6144)),  # a table once more after the tensors
    ("tables", 23): (("E304", 5504), ("E304", 5504)),  # a table after the tensors
    ("tables", 24): (("E304", 5504), ("E304", 5504)),  # a table after a page
    ("tables", 25): (("E304", 4544), ("E304", 4544)),  # a table before HEAD
    ("tables", 27): (("E304", 5568), ("E304", 5504)),  # a table that the header does not have
    ("tables", 30): (("E304", 4928), ("E304", 4864)),  # a piece past the end
    ("tables", 31): (("E304", 4928), ("E304", 4864)),  # a table cut in two
    ("tables", 37): (("E303", 4224), None),  # a packed digest that does not go into content_root
    ("pages", 3): (("E304", None), ("E304", None)),  # codec that the header does not have
    ("pages", 4): (("E304", None), ("E304", None)),  # batch entry that the part does not have
    ("pages", 5): (("E304", None), ("E304", None)),  # layer that no part has
    ("pages", 6): (("E304", None), ("E304", None)),  # no layers
    ("pages", 7): (("E304", None), ("E304", None)),  # two layers
    ("pages", 9): (("E304", None), ("E304", None)),  # tokens past the end
    ("pages", 10): (("E304", None), ("E304", None)),  # first token past the end
    ("pages", 12): (("E304", None), ("E304", None)),  # head set that the header does not have
    ("pages", 13): (("E304", None), ("E304", None)),  # head that the part does not have
    ("pages", 14): (("E304", None), ("E304", None)),  # reason on a page that is not raw
    ("pages", 15): (("E304", None), ("E304", None)),  # no pages
    ("pages", 16): (("E304", None), ("E304", None)),  # page missing
    ("pages", 17): (("E304", None), ("E304", None)),  # page twice
    ("pages", 18): (("E304", None), ("E304", None)),  # pages in another order
    ("pages", 19): (("E304", None), ("E304", None)),  # batch entries in another order
    ("pages", 20): (("E304", None), ("E304", None)),  # a page's tokens stored twice
    ("pages", 21): (("E304", None), ("E304", None)),  # tokens in no page
    ("pages", 22): (("E304", None), ("E304", None)),  # head in no page
    ("pages", 23): (("E306", None), ("E306", None)),  # page of more than 2^26 bytes
}


def refusal(path: Path, *, quick: bool) -> tuple[str, int | None] | None:
    try:
        verify(path, quick=quick, threads=1)
    except ContainerError as error:
        return error.error_id, error.offset
    return None


@pytest.mark.parametrize("name", FOUND, ids=lambda name: f"{name[0]}-{name[1]}")
def test_where_it_is_noticed(name, tmp_path):
    """With all that is decoded, and without."""
    cases = json.loads((FOLDER / f"{name[0]}.json").read_text())["cases"]
    case = next(each for each in cases if each["id"] == name[1])
    path = tmp_path / "container"
    path.write_bytes(operate(container_of(case["base"]), case["edits"]))
    assert (refusal(path, quick=False), refusal(path, quick=True)) == FOUND[name]


def header(kind: bytes, offset: int) -> ChunkHeader:
    return ChunkHeader(kind, 0, 0, 0, bytes(32), b"", offset)


@pytest.mark.parametrize(
    ("events", "refused"),
    [
        (["head", "first", "second", "root"], None),
        (["root"], 0),
        (["head", "root"], 64),
        (["head", "first", "root"], 128),
        (["first"], 0),
        (["head", "second"], 64),
        (["head", "first", "second", "second"], 192),
        (["head", "head"], 64),
    ],
    ids=str,
)
def test_a_container_without_pages(events, refused):
    """A root alone may follow the last tensor, and nothing may be left out before it."""
    audit = Audit(read(changed(header_of("extras"), parts=[])), bytes(32))
    steps = {
        "head": lambda at: audit.head(header(HEAD, at)),
        "first": lambda at: audit.piece(header(TENS, at), (0, 0, 40), b""),
        "second": lambda at: audit.piece(header(TENS, at), (3, 0, 24), b""),
        "root": lambda at: audit.root(header(INDX, at), memoryview(index.frame_root([]))),
    }
    found = None
    for number, event in enumerate(events):
        try:
            steps[event](64 * number)
        except ContainerError as error:
            found = (error.error_id, error.offset)
            break
    assert found == (None if refused is None else ("E304", refused))


def fed(manifest: Manifest, events: list[tuple[bytes, int, int]]) -> int | None:
    """Which of some HEAD, TABL and TENS chunks is the first that is refused."""
    audit = Audit(manifest, bytes(32))
    for number, (kind, table, size) in enumerate(events):
        try:
            if kind == HEAD:
                audit.head(header(kind, number))
            else:
                audit.piece(header(kind, number), (table, 0, size), b"")
        except ContainerError as error:
            assert (error.error_id, error.offset) == ("E304", number)  # noqa: PT017
            return number
    return None


ONE = (HEAD, 0, 0)
LOST = {"header_digest": "blake3:" + "0" * 64, "content_root": None}


@pytest.mark.parametrize(
    ("name", "lost", "events", "refused"),
    [
        ("folder", {"files": [0]}, [ONE, ONE], None),
        ("folder", {"files": [0]}, [ONE, ONE, ONE], 2),
        ("folder", {"files": [0, 1, 2]}, [ONE], 0),
        ("folder", {"files": []}, [ONE, ONE, ONE], None),
        ("extras", {"files": [0]}, [(TENS, 0, 40), (TENS, 3, 24)], None),
        ("extras", {"tensors": [[0, 0]]}, [ONE, (TENS, 3, 24)], None),
        ("extras", {"tensors": [[0, 0]]}, [ONE, (TENS, 0, 40)], 1),
        ("extras", {"tensors": [[3, 0]]}, [ONE, (TENS, 0, 40), (TENS, 3, 24)], 2),
        ("fib-quant", {"tables": [0]}, [ONE, (TABL, 1, 64)], None),
        ("fib-quant", {"tables": [0]}, [ONE, (TABL, 0, 512)], 1),
        ("fib-quant", {"tables": [1]}, [ONE, (TABL, 0, 512), (TABL, 1, 64)], 2),
        ("fib-quant", {}, [ONE, (TABL, 0, 512), (TABL, 1, 64)], None),
    ],
)
def test_what_a_partial_container_lacks(name, lost, events, refused):
    """Files, tables and pieces that are lost are not there, and all others are."""
    partial = LOST | {"files": [], "tables": [], "tensors": []} | lost
    assert fed(read(changed(header_of(name), partial=partial)), events) == refused
