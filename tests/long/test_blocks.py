"""What fibquant loses of real caches, layer by layer, against what its codebooks lose.

On every capture that KVQ_CAPTURES names, keys and values less their means as far as that makes a
token smaller, before norm correction. Two tables are printed:

    error       in units of that of formats/codebooks.md: its least and its greatest over layers,
                then that of each layer which is more than 5 % off
    spread      mean square of the energies of turned blocks, in units of that of random rows
    channels    how many channels of one size would be as uneven as those of a row are
    dense       the error with dense rotations, mean over some

Neither rounding of the source nor centring enters: errors are against the capture's own numbers,
and in units of what is left of them. What does is a Hadamard matrix that meets few channels. Two
of them half a row apart, as rotary embeddings pair them, make all coordinates of a block alike in
size, a + b in one half of the row and a - b in the other: blocks differ more than random ones, and
the error is larger. Others make blocks more alike, and it is smaller. Dense rotations do neither.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest

from kvq_cli import pipeline
from kvq_cli.codecs.codebooks import CHANNELS
from kvq_cli.codecs.fibquant import Fibquant
from support.codewords import stated_errors
from support.real import by_layer, captures, print_table
from support.turned import losses, turned

pytestmark = pytest.mark.long
BOOKS = ((4, 256), (2, 64), (8, 256))
COLUMNS = ("file", *(f"{role} {k}, {size}" for k, size in BOOKS for role in ("K", "V")))
ODD = ("layer", "codebook", "error", "spread", "channels", "rows", "dense")
NEAR = 0.05
APART = 0.06  # what a spread is off by, at least, where it is the reason
ENOUGH = 200  # rows of a layer; of fewer the error is known to one part in the root of them
SEEDS = range(4)  # of dense rotations

every_capture = pytest.mark.parametrize("path", captures())


@pytest.fixture(scope="module")
def tables(request):
    """Rows of both tables, which are printed when the last capture is done."""
    ranges, odd = [], []
    yield ranges, odd
    print_table(request, COLUMNS, ranges)
    print_table(request, ODD, odd)


def measured(book, dtype, words, **params):
    """A layer's error in units of the stated one, and its rows that are not zero."""
    block, size = book
    codec = Fibquant(
        block=block, size=size, center=True, norm="f32", norm_correction=False, **params
    )
    lost, rows = losses(codec, dtype, words)
    energy = (rows**2).sum(axis=1)
    error = lost.sum() / energy.sum() / stated_errors()[words.shape[-1], block, size]
    return error, rows[energy > 0]


def spread(rows, block):
    """1 for random rows; each counts by its energy."""
    channels = rows.shape[1]
    energy = (rows**2).sum(axis=1)
    blocks = (turned(rows) ** 2).reshape(len(rows), -1, block).sum(axis=2) * channels / block
    found = ((blocks**2).mean(axis=1) / energy).sum() / energy.sum()
    return found / ((1 + 2 / block) * channels / (channels + 2))


def effective_channels(rows):
    """Likewise weighted: (Σ x²)² / Σ x⁴."""
    energy = (rows**2).sum(axis=1)
    return (energy**3 / (rows**4).sum(axis=1)).sum() / energy.sum()


class Odd(NamedTuple):
    """What is known of a layer that is not near."""

    error: float
    spread: float
    channels: float
    rows: int
    dense: float

    @property
    def has_a_reason(self):
        off = abs(self.error - 1)
        apart = self.spread - 1 if self.error > 1 else 1 - self.spread
        few = self.rows < ENOUGH and off <= self.rows**-0.5
        return few or (apart >= APART and off <= apart)

    def cells(self):
        numbers = (f"{self.error:.3f}", f"{self.spread:.3f}", f"{self.channels:.1f}")
        return (*numbers, self.rows, f"{self.dense:.3f}")


def odd_layer(book, dtype, words):
    """All of it."""
    error, rows = measured(book, dtype, words)
    dense = [measured(book, dtype, words, rotation="haar", seed=seed)[0] for seed in SEEDS]
    return Odd(error, spread(rows, book[0]), effective_channels(rows), len(rows), np.mean(dense))


@every_capture
def test_every_layer_errs_as_its_codebook_does(path, tmp_path, tables):
    """Within 5 %; or its blocks are spread likewise, and more; or its rows are too few to tell.

    In either case it is the rotation: with dense ones the layer is within 5 %.
    """
    box = tmp_path / "box.kvq"
    pipeline.compress(path, box, profiles=["lossless"])
    layers = by_layer(box, tmp_path / "layers")
    if next(iter(layers.values()))[1].shape[-1] not in CHANNELS:
        pytest.skip("rows have no codebook of their own size")
    found, odd = {}, {}
    for book, role in itertools.product(BOOKS, ("key", "value")):
        for name, (dtype, words) in layers.items():
            if name.endswith(role):
                error, _ = measured(book, dtype, words[0])
                found.setdefault((book, role), []).append(error)
                if abs(error - 1) > NEAR:
                    odd[name, book] = odd_layer(book, dtype, words[0])
    ranges, lines = tables
    ranges.append((path.stem, *(f"{min(each):.2f}-{max(each):.2f}" for each in found.values())))
    for (name, (block, size)), layer in odd.items():
        lines.append((f"{path.stem} {name}", f"{block}, {size}", *layer.cells()))
    for which, layer in odd.items():
        assert layer.has_a_reason, which
        assert abs(layer.dense - 1) <= NEAR, which
