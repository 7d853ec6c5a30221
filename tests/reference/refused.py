"""refused: the one exception of the reference reader."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - what a reader does, not what went wrong in it
    """The bytes are not a container that formats/ allows."""


def need(holds: bool, reason: str) -> None:
    if not holds:
        raise Refused(reason)
