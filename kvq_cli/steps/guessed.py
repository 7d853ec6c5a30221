"""guessed: a layout map that may fit a capture, as `inspect --guess` tells it.

Spec: formats/layout_map.md; formats/report.md, section "inspect".
"""

from __future__ import annotations

from pathlib import Path

from kvq_cli.capture import check_headers, open_source, recognised
from kvq_cli.capture.guess import propose
from kvq_cli.errors import CaptureError, UsageError
from kvq_cli.steps.describe import InspectReport, kind_of


def guess(source: str | Path) -> InspectReport:
    """A layout map that may fit a capture, and what is not certain of it."""
    path = Path(source)
    if kind_of(path) != "capture":
        raise UsageError("E101", "--guess is for captures")
    with open_source(path) as opened:
        check_headers(opened.files)
        try:
            layout = recognised(opened.files)[0]
        except CaptureError:
            layout = None
        found = propose(opened.files)
    members = {
        "layout": layout,
        "layout_map": found.layout_map,
        "complete": found.complete,
        "doubts": list(found.doubts),
    }
    return InspectReport(str(path), "guess", members)
