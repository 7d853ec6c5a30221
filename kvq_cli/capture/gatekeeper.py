"""gatekeeper: the second opinion on a header, by the official safetensors parser.

Spec: formats/capture.md, section "Two parsers".

Two parsers that read one header differently are how a file comes to mean two things. The
official one is shown a sparse temporary file, the header bytes and then nothing up to the
declared size: it sees all it judges by, and never the data. It brings NumPy along.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final, TypeAlias

from safetensors import SafetensorError, __version__, safe_open

from kvq_cli.capture.header import Header, shown
from kvq_cli.errors import CaptureError, FileError

OPEN: Final = Path("/proc/self/fd")  # open files by their numbers
Seen: TypeAlias = tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str]]


def check(header: Header) -> None:
    """CaptureError unless the official parser accepts the header and reads the same from it."""
    tensors = {tensor.name: (tensor.dtype, tensor.shape) for tensor in header.tensors}
    try:
        seen = _official(header)
    except SafetensorError as error:
        raise CaptureError(
            "E201", f"refused by safetensors {__version__}: {shown(str(error))}"
        ) from error
    except OSError as error:
        raise FileError(
            "E601", f"temporary file for safetensors: {shown(error.strerror or str(error))}"
        ) from error
    if seen != (tensors, header.metadata):
        raise CaptureError("E201", f"kvq and safetensors {__version__} read the header differently")


def _official(header: Header) -> Seen:
    directory = os.environ.get("KVQ_TMPDIR") or None
    # A file without a name is gone with the process, however that ends.
    kind = tempfile.TemporaryFile if OPEN.is_dir() else tempfile.NamedTemporaryFile
    with kind(prefix="kvq-", dir=directory) as file:
        file.write(header.raw)
        file.flush()
        os.ftruncate(file.fileno(), header.file_size)
        name = f"{OPEN}/{file.fileno()}" if OPEN.is_dir() else file.name
        with safe_open(name, framework="numpy") as tensors:
            seen = {}
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                part = tensors.get_slice(name)
                seen[name] = (part.get_dtype(), tuple(part.get_shape()))
            return seen, tensors.metadata() or {}
