"""sample: some layers and tokens of a capture, as a capture of its own.

Spec: formats/report.md, section "Samples".

    layers    as many as asked, from the first to the last, as far apart as can be
    tokens    of a layer that has more than asked, the first page and the last ones: pages lie as
              they did, the first token is there, and queries of the end see what they saw last

The sample is written to a temporary file that nobody sees (excerpt), so that whoever measures it
needs to know nothing of samples. Layers keep their numbers, and count from the end as they did.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Self

import numpy as np

from kvq_cli.capture import Capture
from kvq_cli.capture.layout import LayerShape
from kvq_cli.capture.queries import Queries
from kvq_cli.errors import CaptureError, UsageError
from kvq_cli.record import record
from kvq_cli.steps.excerpt import Excerpt, Looks, Ranges, write_excerpt, write_looks
from kvq_cli.steps.facts import check_rows
from kvq_cli.steps.output import spool
from kvq_cli.steps.probe import Probe, QuerySource, probe_of

PAGE: Final = 256  # tokens, unless a profile says otherwise
SPELLING: Final = re.compile(r"([1-9][0-9]{0,8})(?:x([1-9][0-9]{0,8}))?")


@record
class Sample:
    """How many layers and, unless all are wanted, how many tokens of each."""

    layers: int
    tokens: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`4`, or `4x2048`; UsageError where it is neither."""
        found = SPELLING.fullmatch(text)
        tokens = int(found[2]) if found and found[2] else None
        if not found or (tokens is not None and (tokens < 2 * PAGE or tokens % PAGE)):
            allowed = f"layers, as 4, or layers and tokens, as 4x2048: a multiple of {PAGE} from"
            raise UsageError("E101", f"--sample {text}: {allowed} {2 * PAGE} on")
        return cls(int(found[1]), tokens)

    def chosen(self, layers: Sequence[LayerShape]) -> list[LayerShape]:
        """One is the middle one; more go from the first to the last."""
        if self.layers >= len(layers):
            return list(layers)
        if self.layers == 1:
            return [layers[len(layers) // 2]]
        last = len(layers) - 1
        return [layers[at * last // (self.layers - 1)] for at in range(self.layers)]

    def ranges(self, tokens: int) -> Ranges:
        """The tokens of a layer that has so many: the first page, and whole ones of the end."""
        last = 0 if self.tokens is None else (tokens - self.tokens + PAGE) // PAGE * PAGE
        return [(0, PAGE), (last, tokens)] if last > PAGE else [(0, tokens)]


@contextmanager
def sampled(
    capture: Capture, sample: Sample | None, queries: QuerySource
) -> Iterator[tuple[Capture, QuerySource, dict[str, int] | None]]:
    """The sample, the queries that look at it, and what a report says of it."""
    if sample is None:
        yield capture, queries, None
        return
    check_rows(capture)
    layers = sample.chosen(capture.layers)
    excerpt = Excerpt(capture, {each.layer: sample.ranges(each.tokens) for each in layers})
    told = {
        "layers": len(layers),
        "of_layers": len(capture.layers),
        "tokens": excerpt.longest,
        "of_tokens": max(each.tokens for each in capture.layers),
    }
    if excerpt.whole:
        yield capture, queries, told
        return
    with ExitStack() as stack:
        probe = stack.enter_context(probe_of(capture, queries))
        looks = _looks(probe, probe.queries, excerpt) if probe and probe.queries else None
        if looks and queries is not None:  # they lie in a file of their own, and will again
            queries = stack.enter_context(spool())
            write_looks(queries, looks)
            looks = None
        fd = stack.enter_context(spool())
        narrow = stack.enter_context(write_excerpt(fd, excerpt, looks))
        capture.source.check_unchanged()
        yield narrow, queries, told


def _looks(probe: Probe, queries: Queries, excerpt: Excerpt) -> Looks:
    """The queries that see the last tokens of the sample, at their places in it."""
    capture = excerpt.capture
    places = [at for at, each in enumerate(capture.layers) if each.layer in excerpt.ranges]
    count = next(iter(queries.slabs.values())).tokens
    if queries.positions is None:
        return Looks(queries, places, np.arange(count), None)
    shift = max(each.tokens for each in capture.layers) - excerpt.longest
    if shift and queries.rotated and any(map(probe.rope, capture.layers)):
        found = "keys are without rotary positions, queries are not: a sample moves keys alone"
        raise UsageError("E101", found)
    positions = np.array(queries.positions, np.int64) - shift
    chosen = np.flatnonzero(positions >= excerpt.longest - excerpt.end)
    if not len(chosen):
        raise CaptureError("E208", "no query looks at the last tokens of the sample")
    return Looks(queries, places, chosen, positions[chosen])
