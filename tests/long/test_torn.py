"""Containers of real captures, torn in the middle: what is left comes from the capture."""

from __future__ import annotations

import pytest

from kvq_cli import pipeline
from kvq_cli.steps.lost import Fill
from support.real import captures

pytestmark = pytest.mark.long


@pytest.mark.parametrize("profile", ["lossless", "int8"])
@pytest.mark.parametrize("path", captures())
def test_what_is_left_of_a_real_one(path, profile, tmp_path):
    """Its rows, or their source, are the capture's; as many bytes are lost as stand in the list."""
    whole, torn, left = (tmp_path / name for name in ("whole", "torn", "left"))
    pipeline.compress(path, whole, profiles=[profile])
    data = whole.read_bytes()
    torn.write_bytes(data[: len(data) * 6 // 10])
    report = pipeline.recover(torn, left)
    assert not report.complete
    assert 0.2 < report.lost_row_bytes / report.row_bytes < 0.6
    assert not pipeline.verify(left, against=path, partial=True).broken
    restored = pipeline.decompress(left, tmp_path / "back", partial=Fill.NAN)
    assert restored.output_bytes == path.stat().st_size
