"""given: captures to calibrate on, that agree, and the queries that look at them.

Spec: formats/transform.md, section "How one is made".

A layer that holds fewer tokens than the longest holds the last ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from kvq_cli.capture import Capture, Source
from kvq_cli.capture.facts import IDENTITY
from kvq_cli.capture.layout import LayerShape
from kvq_cli.capture.queries import Queries, find_queries
from kvq_cli.errors import CaptureError
from kvq_cli.record import record
from kvq_cli.steps.facts import check_rows
from kvq_cli.steps.inputs import capture_input
from kvq_cli.steps.probe import check_queries
from kvq_cli.words import Role

BESIDE: Final = (".safetensors", ".query.safetensors")
TEXT: Final = "text"  # metadata that names what was read


@record(eq=False)
class Given:
    """One capture, and where its queries lie."""

    capture: Capture
    queries: Queries | None
    asked: str | None = None  # whose they are: the capture's, or the name of a file

    @property
    def longest(self) -> int:
        return max(each.tokens for each in self.capture.layers)

    def first(self, layer: LayerShape) -> int:
        """The position of the layer's first token."""
        return self.longest - layer.tokens

    def start(self, layer: LayerShape, skip: int) -> int:
        """The first token of the layer that counts: those at positions below `skip` do not."""
        return min(max(0, skip - self.first(layer)), layer.tokens)


@contextmanager
def opened(
    sources: Sequence[str | Path],
    queries: Sequence[str | Path],
    layout: str | None,
    meta: dict[str, str],
) -> Iterator[list[Given]]:
    """The captures, each with its queries: those named, those it holds, those beside it."""
    named = iter(queries)
    with ExitStack() as stack:
        found = []
        for source in sources:
            path = Path(source)
            capture = stack.enter_context(capture_input(path, layout, meta))
            check_rows(capture)
            asked = _queries(stack, capture, path, next(named, None))
            if asked is not None:
                check_queries(capture, asked)
            found.append(Given(capture, asked, _whose(capture, asked)))
        for each in found[1:]:
            _check_alike(found[0].capture, each.capture)
        yield found


def common(captures: Sequence[Given]) -> dict[str, str]:
    """The identity that all captures share."""
    first, *others = (each.capture.identity for each in captures)
    return {
        key: first[key]
        for key in IDENTITY
        if key in first and all(other.get(key) == first[key] for other in others)
    }


def _queries(
    stack: ExitStack, capture: Capture, path: Path, named: str | Path | None
) -> Queries | None:
    if named is not None:
        found = find_queries(stack.enter_context(Source(named)))
        if found is None:
            raise CaptureError("E208", f'{named} has no tensor "query"')
        return found
    found = find_queries(capture.source)
    beside = path.with_name(path.name.removesuffix(BESIDE[0]) + BESIDE[1])
    if found is None and path.name.endswith(BESIDE[0]) and beside.is_file():
        found = find_queries(stack.enter_context(Source(beside)))
    return found


def _whose(capture: Capture, queries: Queries | None) -> str | None:
    """What a report calls them."""
    if queries is None:
        return None
    return "capture" if queries.source is capture.source else Path(queries.source.path).name


def _check_alike(one: Capture, other: Capture) -> None:
    """CaptureError E202 unless layers, kv heads and channels are the same."""
    told, found = (
        {
            layer.layer: (layer.heads, *(layer.roles.get(role, (None,))[0] for role in Role))
            for layer in each.layers
        }
        for each in (one, other)
    )
    if told == found:
        return
    path, another = one.source.path, other.source.path
    if told.keys() != found.keys():
        what = f"has {len(found)} layers, {path} has {len(told)}, or others"
        raise CaptureError("E202", f"{another} {what}: captures of one model are expected")
    layer = next(each for each in told if told[each] != found[each])
    words = "kv heads, channels of keys and of values"
    what = f"layer {layer} has {found[layer]} {words}, in {path} it has {told[layer]}"
    raise CaptureError("E202", f"{another}: {what}")
