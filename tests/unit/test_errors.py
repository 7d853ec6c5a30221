"""errors: the tree, and the table that decides exit codes."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from kvq_cli import errors
from kvq_cli.cli.loop import exit_code, explain
from kvq_cli.errors import MEANINGS, KvqError

CLASSES = {
    "E1": {"UsageError", "FileError"},
    "E2": {"CaptureError"},
    "E3": {"ContainerError", "DigestError"},
    "E4": {"ProfileError"},
    "E5": {"CodecError"},
    "E6": {"FileError"},
    "E7": {"KvqError"},
    "E8": {"ExpectationError"},
    "E9": {"KvqError"},
}


def test_every_meaning_is_well_formed():
    """An id of three digits, an exit code of the table, a phrase without a full stop."""
    codes = {1, 2, 3, 4, 5, 6, 7, 70}
    for error_id, (code, meaning) in MEANINGS.items():
        assert re.fullmatch(r"E\d{3}", error_id)
        assert code in codes
        assert meaning
        assert not meaning.endswith(".")
        assert error_id[:2] in CLASSES


def test_every_id_that_is_raised_has_a_meaning():
    """Ids in the source are ids of the table, and each id of the table is used."""
    folder = Path(errors.__file__).parent
    used = set()
    for path in folder.rglob("*.py"):
        if path.name != "errors.py":
            used |= set(re.findall(r'"(E\d{3})"', path.read_text()))
    used.add("E303")  # DigestError raises no other
    assert used <= MEANINGS.keys()
    assert MEANINGS.keys() <= used | {"E701", "E999"}


@pytest.mark.parametrize("error_id", MEANINGS)
def test_the_id_decides_the_exit_code(error_id):
    """Whatever the class, the exit code is the table's."""
    assert KvqError(error_id, "x").exit_code == MEANINGS[error_id][0]
    assert exit_code(KvqError(error_id, "x")) == MEANINGS[error_id][0]


def test_what_is_not_kvq_s_own():
    """The system's refusals are E601, memory is E701, anything else is a bug."""
    assert explain(OSError(errno.ENOSPC, "No space left on device")) == (
        "E601",
        "no space left on device",
    )
    named = FileNotFoundError(errno.ENOENT, "No such file or directory", "a")
    assert explain(named) == ("E601", "a: no such file or directory")
    assert explain(MemoryError())[0] == "E701"
    assert explain(ValueError("x"))[0] == "E999"
    assert exit_code(KeyboardInterrupt()) == 130
    assert exit_code(BrokenPipeError()) == 141


def test_errors_say_where():
    """Pointer, tensor and offset are attributes and part of the message."""
    profile = errors.ProfileError("E401", "wrong", "/rules/0")
    assert (profile.pointer, str(profile)) == ("/rules/0", "/rules/0: wrong")
    capture = errors.CaptureError("E202", "odd", "k_0")
    assert (capture.tensor, str(capture)) == ("k_0", 'tensor "k_0": odd')
    container = errors.DigestError("does not hold", 64)
    assert (container.offset, container.error_id) == (64, "E303")
    assert str(container) == "at byte 64: does not hold"
