"""Layout maps over any header: bindings, or a refusal that is declared."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvq_cli.capture.files import File, Files
from kvq_cli.capture.header import parse_header
from kvq_cli.capture.layout import check_bindings
from kvq_cli.capture.layout_map import parse_map
from kvq_cli.capture.mapped import recognise
from kvq_cli.capture.rows import joined
from kvq_cli.capture.writer import header_bytes
from kvq_cli.errors import CaptureError

RULES = [
    {"name": r"(?P<layer>.*)k", "role": "key", "axes": "HTD"},
    {"name": r"(?P<layer>\d+)\.(?P<head>\d+)", "role": "both", "axes": "RTD"},
    {"name": r"(?P<role>.*)v", "roles": {"1": "value"}, "axes": "T,HD", "lengths": {"H": 2}},
    {"name": ".*x", "role": "value", "axes": "LBTtD", "first_layer": -1},
]
MAP = parse_map({"schema": "kvq_layout_map_v1", "rules": RULES})
NAMES = st.from_regex(r"[0-9]{0,7}[.a]?[0-9]{0,2}[kvx]?", fullmatch=True) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=300
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 8, 300]), max_size=5)


@given(st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), SHAPES, max_size=8))
def test_any_header_is_bound_or_refused(tensors):
    """Whatever names and shapes are, nothing but a CaptureError of a declared kind."""
    told = [(name, "F16", tuple(shape)) for name, shape in tensors.items()]
    raw = header_bytes(told, {})
    size = len(raw) + sum(2 * math.prod(shape) for shape in tensors.values())
    files = Files([File(None, raw, parse_header(raw, size))])
    try:
        found = recognise(MAP, files)
        check_bindings(files, found.bindings if found else ())
        joined(files, found.bindings if found else ())
    except CaptureError as error:
        if error.error_id not in ("E202", "E204", "E206", "E207"):
            pytest.fail(f"{error.error_id} {error}")
