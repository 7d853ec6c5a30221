"""chain: containers that continue each other, token after token.

Spec: formats/container.md, section "Segments".

    base       tokens 0 to n of a cache
    segment    tokens from n on: `continues` is the content_root of what comes before

A segment follows what its `continues` names, and nothing else: what was compressed anew, or
another cache of the same shape, is a stranger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from kvq_cli.capture import Capture
from kvq_cli.container.manifest import Manifest, Part
from kvq_cli.container.reader import Reader
from kvq_cli.container.source import ByteSource
from kvq_cli.digest import text
from kvq_cli.errors import ExpectationError, UsageError
from kvq_cli.record import record
from kvq_cli.words import DType, Role

Rows: TypeAlias = tuple[int, int, dict[Role, tuple[int, DType]]]


@record
class Link:
    """What a segment follows."""

    path: Path
    manifest: Manifest
    content_root: str

    @property
    def end(self) -> int:
        """Tokens of the chain so far."""
        parts = self.manifest.parts
        return self.manifest.token_offset + max((part.tokens for part in parts), default=0)

    def check(self, capture: Capture) -> None:
        """ExpectationError E808 unless the capture has the layers, heads and rows of this one."""
        _check_rows(_rows_of(self.manifest), _rows_of_capture(capture), "the capture")


def read_link(path: str | Path) -> Link:
    """The end of a chain, from its last container's header and footer."""
    if str(path) == "-":
        raise UsageError("E101", "--continues needs a file: the end of a pipe comes last")
    with ByteSource.open(Path(path)) as source:
        reader = Reader(source)
        root = text(reader.footer().content_root)
        # What a segment continues is the whole container, of which this may be what was left.
        partial = reader.manifest.partial
        return Link(Path(path), reader.manifest, (partial and partial.content_root) or root)


def read_chain(paths: Sequence[str | Path]) -> list[Link]:
    """The containers of a chain; ExpectationError E808 unless each continues the one before."""
    links = [read_link(path) for path in paths]
    for before, after in pairwise(links):
        check_follows(before, after)
    return links


def check_follows(before: Link, after: Link) -> None:
    """ExpectationError E808 unless one container continues the other."""
    manifest, name = after.manifest, after.path.name or "it"
    if manifest.continues != before.content_root:
        what = f"continues {manifest.continues or 'nothing'}, not {before.content_root}"
        raise ExpectationError("E808", f"{name}: {what}, which comes before it")
    if manifest.token_offset != before.end:
        what = f"begins at token {manifest.token_offset}, what comes before it ends at {before.end}"
        raise ExpectationError("E808", f"{name}: {what}")
    _check_rows(_rows_of(before.manifest), _rows_of(manifest), name)


def whole_manifest(chain: Sequence[Manifest]) -> Manifest:
    """The first one, with the tokens of all."""
    before, last = starts(chain)[-1], chain[-1].parts_by_layer()
    parts = [
        _with_tokens(part, layer, before[layer] + last[layer].tokens)
        for layer, part in chain[0].parts_by_layer().items()
    ]
    return replace(chain[0], parts=tuple(parts))


def starts(chain: Sequence[Manifest]) -> list[Mapping[int, int]]:
    """For each container, how many rows of a layer come before its own."""
    found: list[Mapping[int, int]] = []
    before = dict.fromkeys(chain[0].parts_by_layer(), 0)
    for manifest in chain:
        found.append(dict(before))
        for layer, part in manifest.parts_by_layer().items():
            before[layer] += part.tokens
    return found


def _with_tokens(part: Part, layer: int, tokens: int) -> Part:
    roles = {role: replace(each, shape_digest=None) for role, each in part.roles.items()}
    return replace(part, layers=((layer, layer + 1),), tokens=tokens, roles=roles)


def _rows_of(manifest: Manifest) -> dict[int, Rows]:
    return {
        layer: (
            part.batch,
            part.kv_heads,
            {role: (each.head_dim, each.dtype) for role, each in part.roles.items()},
        )
        for layer, part in manifest.parts_by_layer().items()
    }


def _rows_of_capture(capture: Capture) -> dict[int, Rows]:
    return {layer.layer: (layer.batch, layer.heads, layer.roles) for layer in capture.layers}


def _check_rows(before: dict[int, Rows], after: dict[int, Rows], name: str) -> None:
    for layer in sorted(before.keys() | after.keys()):
        one, other = before.get(layer), after.get(layer)
        if one != other:
            told = f"{_told(other)}, what comes before it {_told(one)}"
            raise ExpectationError("E808", f"{name}: layer {layer} has {told}")


def _told(rows: Rows | None) -> str:
    if rows is None:
        return "nothing"
    batch, heads, roles = rows
    sizes = (f"{role.word}s of {size} {dtype}" for role, (size, dtype) in roles.items())
    return f"batch {batch}, {heads} kv heads, {', '.join(sizes)}"
