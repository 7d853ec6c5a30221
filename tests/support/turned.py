"""turned: what rotated codecs lose of a page's rows, and the coordinates that rows turn into."""

from __future__ import annotations

import numpy as np

from kvq_cli.codecs import page_of
from kvq_cli.numerics.bits import widen
from kvq_cli.numerics.rotation import rotation
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from support.real import floats


def losses(codec, dtype, words):
    """Squared error of each row, and the rows less their means as far as they are centred."""
    spec = PageSpec(*words.shape, DType(dtype))
    planes = codec.encode(Page(spec, np.ascontiguousarray(words)), Scratch())
    before, means = floats(dtype, words), np.zeros(planes["means"].shape, np.float32)
    widen(planes["means"], spec.dtype, means)
    rows = before - means.astype(np.float64) * planes["centred"]
    into = page_of(PageSpec(*spec.shape, DType.F32))
    codec.decode(planes, spec, into, Scratch())
    lost = ((before - floats("F32", into.bits)) ** 2).sum(axis=2)
    return lost.ravel(), rows.reshape(-1, spec.channels)


def turned(rows):
    """What the Hadamard rotation of seed 0 makes of rows; their lengths stay."""
    channels = rows.shape[1]
    unit = np.eye(channels, dtype=np.float32)
    return rows @ rotation("hadamard", channels, 0).turn(unit, Scratch()) / np.sqrt(channels)
