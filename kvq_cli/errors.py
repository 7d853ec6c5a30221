"""errors: every way kvq can refuse, in one tree and one table.

    KvqError
    ├── UsageError        the command line or an argument of the Python API
    ├── ProfileError      a profile, shape file or vector profile; has a JSON pointer
    ├── CaptureError      a capture; names the tensor
    ├── CodecError        a page that a codec cannot hold, or planes no encoder writes
    ├── ContainerError    a container; has a byte offset
    │   └── DigestError   bytes that are not the bytes that were written
    ├── ExpectationError  the file is intact, but not what was expected of it
    └── FileError         the operating system said no, or we refused to touch a file

The class says whose input is at fault; the id says what is wrong. The id decides the
exit code, through MEANINGS, which docs/errors.md lists for users.
"""

from __future__ import annotations

from typing import Final

EXPECTATION: Final = 1
USAGE: Final = 2
DAMAGED: Final = 3
UNSUPPORTED: Final = 4
REFUSED: Final = 5
INPUT_OUTPUT: Final = 6
LIMIT: Final = 7
BUG: Final = 70
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

MEANINGS: Final[dict[str, tuple[int, str]]] = {
    # 1xx: the call
    "E101": (USAGE, "wrong option or argument"),
    "E102": (USAGE, "no such profile"),
    "E103": (REFUSED, "output exists"),
    "E104": (REFUSED, "output is the input"),
    "E105": (REFUSED, "binary data to a terminal"),
    # 2xx: captures
    "E201": (DAMAGED, "not a safetensors file, or a damaged one"),
    "E202": (DAMAGED, "capture tensors contradict each other"),
    "E203": (UNSUPPORTED, "tensor dtype is not supported"),
    "E204": (UNSUPPORTED, "layout is not recognised, or more than one fits"),
    "E205": (DAMAGED, "capture changed while it was read"),
    "E206": (DAMAGED, "capture holds no tokens"),
    "E207": (LIMIT, "capture exceeds a limit"),
    "E208": (EXPECTATION, "queries are for another capture"),
    "E209": (UNSUPPORTED, "file of another tool, not a capture"),
    # 3xx: containers
    "E301": (DAMAGED, "not a kvq container"),
    "E302": (DAMAGED, "container is truncated"),
    "E303": (DAMAGED, "a digest does not hold"),
    "E304": (DAMAGED, "a field holds a value outside the spec"),
    "E305": (UNSUPPORTED, "container needs a newer kvq"),
    "E306": (LIMIT, "container exceeds a limit"),
    "E307": (DAMAGED, "an entropy coded plane is not what its table says"),
    # 4xx: profiles
    "E401": (DAMAGED, "not a profile, calibration or layout map: JSON or field is wrong"),
    "E402": (EXPECTATION, "profile is for another shape"),
    "E403": (UNSUPPORTED, "profile asks for what this version cannot do"),
    "E404": (LIMIT, "profile exceeds a limit"),
    # 5xx: codecs
    "E501": (EXPECTATION, "page cannot be held by its codec"),
    "E502": (DAMAGED, "planes hold a value no encoder writes"),
    "E503": (UNSUPPORTED, "no such codec or revision"),
    "E504": (UNSUPPORTED, "the processor flushes subnormal numbers to zero"),
    # 6xx: input and output
    "E601": (INPUT_OUTPUT, "input or output failed"),
    # 7xx: limits of the process
    "E701": (LIMIT, "out of memory"),
    "E702": (LIMIT, "a writer is full"),
    # 8xx: expectations of verify
    "E801": (EXPECTATION, "profile differs from the expected one"),
    "E802": (EXPECTATION, "shape differs from the expected one"),
    "E803": (EXPECTATION, "root differs from the expected one"),
    "E804": (EXPECTATION, "file is larger, or the ratio smaller, than allowed"),
    "E805": (EXPECTATION, "container does not come from this capture"),
    "E806": (EXPECTATION, "quality budget is not kept"),
    "E807": (EXPECTATION, "calibration differs from the expected one"),
    "E808": (EXPECTATION, "segment does not continue what comes before it"),
    "E809": (EXPECTATION, "identity or geometry differs from the expected one"),
    "E810": (EXPECTATION, "container is partial: rows, tensors or tables of it are lost"),
    "E999": (BUG, "a bug in kvq"),
}


class KvqError(Exception):
    """What kvq refuses: an id of MEANINGS and one line of text."""

    def __init__(self, error_id: str, message: str) -> None:
        super().__init__(message)
        self.error_id = error_id
        self.exit_code = MEANINGS[error_id][0]


class UsageError(KvqError):
    """The call itself is wrong."""


class ProfileError(KvqError):
    """A profile or shape file is refused; `pointer` is the JSON pointer of the member."""

    def __init__(self, error_id: str, message: str, pointer: str = "") -> None:
        super().__init__(error_id, f"{pointer or '/'}: {message}")
        self.pointer = pointer


class CaptureError(KvqError):
    """A capture is refused; `tensor` names the tensor, where there is one."""

    def __init__(self, error_id: str, message: str, tensor: str | None = None) -> None:
        super().__init__(error_id, message if tensor is None else f'tensor "{tensor}": {message}')
        self.tensor = tensor


class CodecError(KvqError):
    """A page that a codec cannot hold, or planes no encoder writes."""


class ContainerError(KvqError):
    """A container is refused; `offset` is where, in bytes from its start."""

    def __init__(self, error_id: str, message: str, offset: int | None = None) -> None:
        super().__init__(error_id, message if offset is None else f"at byte {offset}: {message}")
        self.offset = offset


class DigestError(ContainerError):
    """Bytes are not the bytes that were written."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__("E303", message, offset)


class ExpectationError(KvqError):
    """The file is intact; something expected of it does not hold."""


class FileError(KvqError):
    """The operating system said no, or kvq refused to touch a file."""


def reason(error: OSError) -> str:
    """What the operating system said, as kvq writes it."""
    return (error.strerror or str(error)).lower()
