"""whole: the cache that a segment ends, as a capture of its own, to measure attention over.

Spec: formats/profile.md, section "budget".

Tokens of the chain are there as its containers restore them, those of the segment as they were
captured. All of it lies in an unlinked temporary file, in the layout `hf`.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

import numpy as np

from kvq_cli.capture import Capture, Source, open_capture
from kvq_cli.capture.files import Files
from kvq_cli.capture.sink import Sink
from kvq_cli.capture.slab import Slab, read_rows, write_rows
from kvq_cli.errors import UsageError
from kvq_cli.steps.audited import read_all
from kvq_cli.steps.joining import Joining, open_chain
from kvq_cli.steps.output import spool
from kvq_cli.steps.plan import PagePlan, Plan
from kvq_cli.steps.select import Selection
from kvq_cli.steps.work import silent, workers

TOKENS: Final = 1 << 12  # copied together


class _Spool:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.sink: Sink

    def begin(self, files: Files) -> Sink:
        os.ftruncate(self._fd, files.size)
        self.sink = Sink([self._fd])
        self.sink.write(0, files.files[0].head)
        return self.sink

    def wrote(self, count: int) -> None:
        """Nobody waits for the disk."""


def whole_capture(plan: Plan, threads: int, stack: ExitStack) -> Capture:
    """The chain that a plan continues, and its own tokens behind it."""
    capture, readers = plan.capture, open_chain(plan.chain, stack)
    manifests = [*(reader.manifest for reader in readers), plan.manifest]
    if manifests[0].token_offset:
        what = "a budget of attention looks at all tokens: name every container of the chain"
        raise UsageError("E101", f"--continues: {what}, the first one first")
    fd = stack.enter_context(spool())
    placed, joining = _Spool(fd), Joining(manifests, Selection(), "hf", None)
    with workers(threads, messages=True) as pool:
        for at, reader in enumerate(readers):
            read_all(reader, pool, joining.begin(at, placed), silent)
    whole = stack.enter_context(open_capture(Source(fd, "the whole cache"), "hf"))
    for place, slab in capture.slabs.items():
        _copy(capture.source, slab, placed.sink, whole.slabs[place])
    return replace(whole, identity=capture.identity, facts=capture.facts)


def moved(page: PagePlan, whole: Capture) -> PagePlan:
    """The page of a segment, where its rows lie in the whole cache."""
    key = page.record.key
    slab = whole.slabs[key.role, key.batch, key.layer]
    before = slab.tokens - page.slab.tokens
    key = replace(key, start=key.start + before, stop=key.stop + before)
    return replace(page, slab=slab, record=replace(page.record, key=key))


def _copy(source: Source, slab: Slab, sink: Sink, target: Slab) -> None:
    """The rows of a segment behind those of the chain."""
    before = target.tokens - slab.tokens
    for start in range(0, slab.tokens, TOKENS):
        stop = min(start + TOKENS, slab.tokens)
        rows = np.empty((slab.heads, stop - start, slab.channels), slab.dtype.bits)
        read_rows(source, slab, range(slab.heads), start, stop, rows)
        write_rows(sink, target, range(target.heads), before + start, before + stop, rows)
