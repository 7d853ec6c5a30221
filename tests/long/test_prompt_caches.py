"""Real prompt caches of mlx-lm, in the folder `mlx` of KVQ_CAPTURES."""

from __future__ import annotations

import pytest

from kvq_cli import pipeline
from kvq_cli.capture import open_capture
from kvq_cli.errors import CaptureError
from support.real import captures, tensors

pytestmark = pytest.mark.long


@pytest.mark.parametrize("path", captures("mlx"))
def test_there_and_back(path, tmp_path):
    """Recognised by itself; lossless is the file, and every layout gives the same numbers."""
    with open_capture(path) as capture:
        name, quantised = capture.layout, not capture.bindings
        assert name.startswith("mlx")
        assert capture.identity["model"]
    box, back = tmp_path / "box", tmp_path / "back"
    pipeline.compress(path, box)
    pipeline.verify(box)
    pipeline.decompress(box, back)
    assert back.read_bytes() == path.read_bytes()
    if quantised:
        with pytest.raises(CaptureError, match="quantised already"):
            pipeline.compress(path, tmp_path / "lossy", profiles=["int8"])
        return
    before = held(path)
    for layout in ("canonical", "hf", "mlx", "mlx-0.31"):
        pipeline.decompress(box, tmp_path / layout, layout=layout)
        pipeline.compress(tmp_path / layout, tmp_path / "again", force=True)
        pipeline.decompress(tmp_path / "again", back, layout=name, force=True)
        assert held(back) == before
    for profile in ("int8", "int4", "kivi-4bit"):
        pipeline.compress(path, box, profiles=[profile], force=True)
        assert not pipeline.verify(box, against=path).broken


def held(path):
    return {name: (dtype, bits.shape, bits.tobytes()) for name, dtype, bits in tensors(path)}
