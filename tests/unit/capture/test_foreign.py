"""foreign: whose file it is, by first bytes and name, for any bytes and any name."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.capture import Source
from kvq_cli.capture.foreign import (
    HEAD,
    KINDS,
    WEIGHTS,
    is_safetensors,
    kind_of,
    refuse_foreign,
    refuse_weights,
)
from kvq_cli.errors import CaptureError
from support.captures import canonical_capture

FORMATS = Path(__file__).parents[3] / "formats"
VECTORS = json.loads((FORMATS / "vectors" / "capture" / "foreign.json").read_text())
MAGICS = [bytes.fromhex(case["first_hex"]) for case in VECTORS["cases"]]
NAMES = [case["file"] for case in VECTORS["cases"]]


def refused(call: Callable[..., None], *arguments: object) -> CaptureError | None:
    """The refusal that a call ends in, if it does."""
    try:
        call(*arguments)
    except CaptureError as refusal:
        return refusal
    return None


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_kinds(case: dict) -> None:
    """First bytes and name give the kind that the recipe names, in any folder."""
    head = bytes.fromhex(case["first_hex"])
    for name in (case["file"], f"/a@1@0@ff@b/{case['file']}"):
        kind = kind_of(head, name)
        told = "safetensors" if is_safetensors(head) else None
        assert (kind.word if kind else told) == case["kind"]
        if kind:
            with pytest.raises(CaptureError) as refusal:
                refuse_foreign(head, name)
            assert refusal.value.error_id == "E209"
        else:
            refuse_foreign(head, name)


@pytest.mark.parametrize("case", VECTORS["weights"], ids=lambda case: case["name"])
def test_weights(case: dict) -> None:
    """Tensors of a model are told by their names, and the first of them is shown."""
    if not case["kind"]:
        refuse_weights(case["tensors"])
        return
    with pytest.raises(CaptureError) as refusal:
        refuse_weights(case["tensors"])
    assert refusal.value.error_id == "E209"
    assert case["tensors"][0] in str(refusal.value)


def test_every_kind_has_a_vector_and_a_row() -> None:
    """The table of the page, in order, is the code's; the vectors leave no kind out."""
    words = [kind.word for kind in KINDS]
    page = (FORMATS / "capture.md").read_text()
    section = page.split("## Files that are not captures\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == words
    assert {case["kind"] for case in VECTORS["cases"]} == {*words, "safetensors", None}
    assert f"`{WEIGHTS.word}`" in section


def test_every_sentence_is_one_line() -> None:
    """What kvq says of a kind is what and what instead, without a full stop."""
    for kind in (*KINDS, WEIGHTS):
        text = str(kind.refusal())
        assert text.isprintable()
        assert "not a capture; " in text
        assert not text.endswith(".")


@pytest.mark.parametrize("name", ["headers-valid.json", "headers-invalid.json"])
def test_no_vector_of_a_header_is_foreign(name: str) -> None:
    """The two rules never speak of the same bytes."""
    for case in json.loads((FORMATS / "vectors" / "capture" / name).read_text())["cases"]:
        text = bytes.fromhex(case.get("header_hex", "")) or case.get("header", "").encode()
        length = case.get("length", len(text) + case.get("spaces", 0)).to_bytes(8, "little")
        head = bytes.fromhex(case["file_hex"]) if "file_hex" in case else length + text
        assert kind_of(head[:HEAD], "cache.safetensors") is None


def test_a_capture_is_never_foreign() -> None:
    """Whatever a capture is called, and wherever it is cut behind its brace."""
    data = canonical_capture()
    for name in NAMES:
        assert all(kind_of(data[:size], name) is None for size in range(9, 400))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_told_and_not_loaded(protocol: int, tmp_path: Path) -> None:
    """A pickle that would do something when it is loaded does nothing."""

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "cache.pt"
    path.write_bytes(pickle.dumps([Trap(), "x" * 100], protocol=protocol))
    with pytest.raises(CaptureError) as refusal:
        Source(path)
    assert refusal.value.error_id == "E209"
    assert not (tmp_path / "sprung").exists()


def test_only_the_head_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign file of a terabyte costs 4 KiB."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    os.truncate(path, 1 << 40)
    read = []
    original = os.preadv

    def counted(fd, buffers, offset):
        read.append(original(fd, buffers, offset))
        return read[-1]

    monkeypatch.setattr(os, "preadv", counted)
    with pytest.raises(CaptureError):
        Source(path)
    assert sum(read) == HEAD


@settings(deadline=None, max_examples=300)
@given(
    start=st.one_of(st.sampled_from(MAGICS), st.binary(max_size=8)),
    rest=st.binary(max_size=64),
    name=st.one_of(st.sampled_from(NAMES), st.text(max_size=300)),
)
def test_any_bytes_and_any_name(start: bytes, rest: bytes, name: str) -> None:
    """Nothing but a kind, or none; and E209 says so on one line."""
    kind = kind_of(start + rest, name)
    assert kind is None or kind in KINDS
    refusal = refused(refuse_foreign, start + rest, name)
    assert (refusal is None) == (kind is None)
    assert refusal is None or (refusal.error_id == "E209" and str(refusal).isprintable())


@settings(deadline=None, max_examples=150)
@given(start=st.one_of(st.sampled_from(MAGICS), st.binary(max_size=8)), rest=st.binary(max_size=64))
def test_any_file_gives_a_declared_error(start: bytes, rest: bytes, tmp_path_factory) -> None:
    """Opening a file of any bytes gives a source or a declared refusal."""
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(start + rest)
    refusal = refused(lambda: Source(path).close())
    assert refusal is None or refusal.error_id in ("E201", "E203", "E207", "E209")


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), max_size=5))
def test_any_tensor_names(names: list[str]) -> None:
    """Names from a file are escaped where they are shown."""
    refusal = refused(refuse_weights, [*names, "\x1b[31m\n.weight"])
    assert refusal is not None
    assert refusal.error_id == "E209"
    assert str(refusal).isprintable()
