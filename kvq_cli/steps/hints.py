"""hints: what a user tells of tensors whose shapes do not: heads, head_dim, tokens of a block.

Spec: formats/capture.md, section "Hints".

They are no identity, and go to the layout before anything is bound. A hint that the tensors
contradict, or that nothing takes, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kvq_cli.capture import Capture
from kvq_cli.capture.facts import HINTS, count_of
from kvq_cli.errors import UsageError


def parted(meta: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The hints, and what is left of --meta; UsageError for a hint that is no number."""
    hints = {key: text for key, text in meta.items() if key in HINTS}
    for key, text in hints.items():
        if count_of(hints, key) is None:
            raise UsageError("E101", f"--meta {key}={text}: a number from 1 is expected")
    return hints, {key: text for key, text in meta.items() if key not in HINTS}


def check_hints(capture: Capture, hints: Mapping[str, str]) -> None:
    """UsageError unless the capture is as the user says."""
    for key, text in hints.items():
        if capture.doubt is not None:
            raise UsageError("E101", f"--meta {key}={text} does not help: {capture.doubt}")
        found = sorted(set(_lengths(capture, key)))
        if found != [int(text)] and (found or key == "block_size"):
            told = f"the capture has {', '.join(map(str, found)) or 'none'}"
            raise UsageError("E101", f"--meta {key}={text} is not true of the tensors: {told}")


def _lengths(capture: Capture, key: str) -> Iterator[int]:
    """What there is of a hint in the capture."""
    if key == "kv_heads":
        yield from (layer.heads for layer in capture.layers)
    elif key == "head_dim":
        sizes = (each for layer in capture.layers for each in (layer.key, layer.value))
        yield from (each[0] for each in sizes if each is not None)
    else:
        yield from (each.block for each in capture.bindings if each.block > 1)
