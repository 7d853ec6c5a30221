"""Widened: 8-bit floats as F16, each exactly, wherever a reader begins."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvq_cli.capture.source import Source
from kvq_cli.capture.widened import CODES, Widened
from support.captures import safetensors_bytes

FORMS = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}


@pytest.mark.parametrize("name", list(FORMS))
def test_every_code(name):
    """All 256 codes are the numbers that ml_dtypes says, signs of zeros and NaNs included."""
    expected = np.arange(256, dtype=np.uint8).view(FORMS[name]).astype(np.float16)
    found = CODES[name].view(np.float16)
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(found), nan)
    assert np.array_equal(found[~nan].view("<u2"), expected[~nan].view("<u2"))


def source_of(path):
    """Three tensors, two of them of 8-bit floats, in another order than they are told in."""
    rng = np.random.Generator(np.random.PCG64(1))
    codes = [rng.integers(0, 256, 30, dtype=np.uint8).tobytes() for _ in "ab"]
    tensors = {
        "v": ("F8_E5M2", (5, 6), codes[0]),
        "odd": ("U8", (3,), b"xyz"),
        "k": ("F8_E4M3", (5, 6), codes[1]),
    }
    path.write_bytes(safetensors_bytes(tensors, {"model": "m", "dtype": "f8"}))
    return Source(path), tensors


def test_what_it_says(tmp_path):
    """F16 of the same shapes; metadata but the dtype; other tensors as they are."""
    source, tensors = source_of(tmp_path / "a")
    with Widened(source) as wide:
        told = {each.name: (each.dtype, each.shape) for each in wide.files.tensors}
        assert told == {"k": ("F16", (5, 6)), "v": ("F16", (5, 6)), "odd": ("U8", (3,))}
        assert (dict(wide.files.metadata), wide.names) == ({"model": "m"}, ["F8_E4M3", "F8_E5M2"])
        for each in wide.files.tensors:
            data = bytearray(each.nbytes)
            wide.read_into(each.start, data)
            dtype, _, raw = tensors[each.name]
            codes = CODES.get(dtype)
            expected = raw if codes is None else codes[np.frombuffer(raw, np.uint8)].tobytes()
            assert data == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_range(tmp_path, data):
    """Any bytes of the data, cut into buffers anyhow, are those of the whole."""
    source, _ = source_of(tmp_path / "a")
    with Widened(source) as wide:
        begin, end = wide.files.tensors[0].start, wide.files.tensors[-1].stop
        whole = bytearray(end - begin)
        wide.read_into(begin, whole)
        start = data.draw(st.integers(0, len(whole)))
        sizes = data.draw(st.lists(st.integers(0, 40), max_size=4))
        buffers = [bytearray(size) for size in sizes]
        stop = start + sum(sizes)
        if stop <= len(whole):
            wide.read_into(begin + start, *buffers)
            assert b"".join(buffers) == whole[start:stop]
