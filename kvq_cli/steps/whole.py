"""whole: the cache that a segment ends, as a capture of its own, to measure attention over.

Spec: formats/profile.md, section "budget".

Tokens of the chain are there as its containers restore them, those of the segment as they were
captured. All of it lies in an unlinked temporary file, in the layout `hf`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from kvq_cli.capture import Capture, Source, open_capture
from kvq_cli.capture.copying import copy_rows
from kvq_cli.capture.sink import Sink
from kvq_cli.errors import UsageError
from kvq_cli.steps.audited import read_all
from kvq_cli.steps.joining import Joining, open_chain
from kvq_cli.steps.output import spool
from kvq_cli.steps.placed import PlacedFile
from kvq_cli.steps.plan import PagePlan, Plan
from kvq_cli.steps.select import Selection
from kvq_cli.steps.work import silent, workers


def whole_capture(plan: Plan, threads: int, stack: ExitStack) -> Capture:
    """The chain that a plan continues, and its own tokens behind it."""
    capture, readers = plan.capture, open_chain(plan.chain, stack)
    manifests = [*(reader.manifest for reader in readers), plan.manifest]
    if manifests[0].token_offset:
        what = "a budget of attention looks at all tokens: name every container of the chain"
        raise UsageError("E101", f"--continues: {what}, the first one first")
    fd = stack.enter_context(spool())
    placed, joining = PlacedFile(fd, _unheard), Joining(manifests, Selection(), "hf", None)
    with workers(threads, messages=True) as pool:
        for at, reader in enumerate(readers):
            read_all(reader, pool, joining.begin(at, placed), silent)
    whole = stack.enter_context(open_capture(Source(fd, "the whole cache"), "hf"))
    for place, slab in capture.slabs.items():
        new = whole.slabs[place]
        before = new.tokens - slab.tokens
        copy_rows(capture.source, slab, (0, slab.tokens), Sink([fd]), new, before)
    return replace(whole, identity=capture.identity, facts=capture.facts)


def moved(page: PagePlan, whole: Capture) -> PagePlan:
    """The page of one layer of a segment, where its rows lie in the whole cache."""
    key = page.record.key
    slab = whole.slabs[key.role, key.batch, key.layer]
    before = slab.tokens - page.slab.tokens
    key = replace(key, start=key.start + before, stop=key.stop + before)
    return replace(page, slabs=(slab,), record=replace(page.record, key=key))


def _unheard(count: int) -> None:
    """Nobody waits for the disk."""
