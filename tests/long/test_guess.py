"""Proposals of layout maps for real captures are what their layouts bind."""

from __future__ import annotations

import pytest

from kvq_cli.capture import mapped, open_capture
from kvq_cli.capture.guess import propose
from kvq_cli.capture.layout import bind
from kvq_cli.capture.layout_map import parse_map
from support.real import captures

pytestmark = pytest.mark.long


@pytest.mark.parametrize("told", [True, False], ids=["metadata", "none"])
@pytest.mark.parametrize("path", captures())
def test_a_proposal_is_what_the_layout_binds(path, told):
    """With the metadata and without: the same rows of the same tensors."""
    with open_capture(path) as capture:
        files = capture.source.files
        files.metadata = files.metadata if told else {}
        found = propose(files)
        assert found.complete, found.doubts
        again = bind(capture.source, "map", mapped.recognise(parse_map(found.layout_map), files))
        assert again.slabs == capture.slabs
