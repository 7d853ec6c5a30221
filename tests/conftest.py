"""Figures of campaigns: what tests count, added up and printed in one line each at the end.

record_property("figure", ("flipped bits, all refused", 4000))
"""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add up the figures of all tests that passed, also of those that ran elsewhere."""
    figures: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for key, value in report.user_properties:
            if key == "figure":
                figures[value[0]] += value[1]
    for what, count in figures.items():
        terminalreporter.write_line(f"{count:,} {what}")
