"""profile: which codec every part of a capture gets, and on what terms.

Spec: formats/profile.md.

    load_profile, parse_profile     JSON to a Profile
    runs, pages, codec_table        a Profile applied to a layer
    compat.from_kv_profile          a fib_quant KV profile as a Profile
"""

from __future__ import annotations

from kvq_cli.profile.builtin import (
    builtin_names,
    load_budget,
    load_calibration,
    load_object,
    load_profile,
    read_profile,
)
from kvq_cli.profile.calibration import Calibration
from kvq_cli.profile.caution import cautions
from kvq_cli.profile.model import (
    BOUNDS,
    SCHEMA,
    TARGETS,
    Budget,
    Entropy,
    Fallback,
    Profile,
    Protected,
    Rule,
    Rung,
    Storage,
)
from kvq_cli.profile.parse import parse_profile
from kvq_cli.profile.policy import Run, codec_table, page_lengths, pages, runs
from kvq_cli.profile.ranges import Range

__all__ = [
    "BOUNDS",
    "SCHEMA",
    "TARGETS",
    "Budget",
    "Calibration",
    "Entropy",
    "Fallback",
    "Profile",
    "Protected",
    "Range",
    "Rule",
    "Run",
    "Rung",
    "Storage",
    "builtin_names",
    "cautions",
    "codec_table",
    "load_budget",
    "load_calibration",
    "load_object",
    "load_profile",
    "page_lengths",
    "pages",
    "parse_profile",
    "read_profile",
    "runs",
]
