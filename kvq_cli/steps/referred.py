"""referred: the tables that a container refers to, from the file of its calibration.

Spec: formats/container.md, section "Tables".
"""

from __future__ import annotations

from pathlib import Path

from kvq_cli.container.reader import Reader
from kvq_cli.errors import FileError, ProfileError, reason
from kvq_cli.numerics.scratch import Tables
from kvq_cli.planes import table_spec
from kvq_cli.profile import load_calibration
from kvq_cli.steps.kvqcal import Kvqcal, load_kvqcal


def give(reader: Reader, calibration: str | Path | None) -> None:
    """Let a container have its calibration; ProfileError E402 where it names another."""
    if calibration is None:
        return
    loaded, named = load_kvqcal(calibration), reader.manifest.calibration_digest
    if loaded.digest != named:
        found = f"the container names the calibration {named or 'none'}"
        raise ProfileError("E402", f"{found}, {calibration} is {loaded.digest}")
    reader.given = tables_of(loaded)


def offer(reader: Reader, calibration: str | Path | None) -> None:
    """Let a container have its calibration, if this is it."""
    if calibration is None or not is_kvqcal(calibration):
        return
    loaded = load_kvqcal(calibration)
    if loaded.digest == reader.manifest.calibration_digest:
        reader.given = tables_of(loaded)


def calibration_digest(path: str | Path) -> str:
    """Of a calibration of either kind: of rows, or for the codec transform."""
    return load_kvqcal(path).digest if is_kvqcal(path) else load_calibration(path).digest()


def is_kvqcal(path: str | Path) -> bool:
    """Whether a file begins as safetensors do, and not as JSON."""
    try:
        with open(path, "rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise FileError("E601", f"{path}: {reason(error)}") from error


def tables_of(calibration: Kvqcal) -> Tables:
    """What a decoder needs of it."""
    return {table_spec(calibration.array).digest: calibration.array}
