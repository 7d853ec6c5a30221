"""codewords: errors and the nearest of them as the spec says it, and blocks hard to place."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np

from kvq_cli.codecs.codebooks import SIZES
from kvq_cli.numerics.keys import CLIP, index_type
from kvq_cli.numerics.scratch import Scratch

FORMATS = Path(__file__).parents[2] / "formats"
PAGE = (FORMATS / "codebooks.md").read_text(encoding="utf-8")


def stated_errors():
    """The table of the page, by (D, k, N)."""
    rows = re.findall(r"^\| (\d+) \| (0\.\d+(?: \| 0\.\d+)*) \|$", PAGE, re.MULTILINE)
    return {
        (int(channels), *each): float(value)
        for channels, values in rows
        for each, value in zip(SIZES, values.split(" | "), strict=True)
    }


def plainly(blocks, codewords):
    """argmin |x - c|² over integers, the lowest index of several.

    Less |x|², which is the same for all; float64 holds every sum, and has fast products.
    """
    units = np.clip(np.rint(np.asarray(blocks, np.float64)), -CLIP, CLIP)
    wide = codewords.astype(np.float64)
    norms = (wide * wide).sum(axis=1)
    found = np.empty(len(units), np.int64)
    for start in range(0, len(units), 512):
        part = slice(start, start + 512)
        found[part] = (norms - 2 * (units[part] @ wide.T)).argmin(axis=1)
    return found


def found_by(search, blocks, codewords, scratch=None):
    """What a search says of blocks."""
    out = np.empty(len(blocks), index_type(len(codewords)))
    search(np.ascontiguousarray(blocks, np.float32), out, scratch or Scratch())
    return out


def assert_nearest(search, blocks, codewords):
    """The search and the spec agree on every block."""
    wrong = np.flatnonzero(found_by(search, blocks, codewords) != plainly(blocks, codewords))
    assert not wrong.size, np.asarray(blocks)[wrong[:5]]


def hard(codewords, seed=0, count=1500):
    """Ties and what lies next to them, mirrors, outliers, the codewords themselves."""
    random = np.random.default_rng(seed)
    size, block = codewords.shape
    pairs = random.integers(0, size, (2, count))
    near = np.abs(codewords[pairs[0]].astype(int) - codewords[pairs[1]]).sum(axis=1)
    pairs = pairs[:, np.argsort(near)]
    middle = codewords[pairs[0]].astype(int) + codewords[pairs[1]]
    small = random.integers(-2, 3, (count, block)) * random.choice([1, 9, 40], (count, 1))
    zeroed = codewords[pairs[0]] * random.integers(0, 2, (count, block))
    level = random.integers(-300, 301, (count, 1)) * random.choice([-1, 1], (count, block))
    axes = np.concatenate([np.eye(block), -np.eye(block), np.ones((1, block))])
    far = np.concatenate([axes * reach for reach in (512, 1023, 1024, 1025, 2048, 4096, 1e6, 1e30)])
    halves = middle / 2 + random.choice([-0.5, 0, 0.5], middle.shape)
    return np.concatenate(
        [codewords, middle / 2, halves, small, zeroed, level, far, -codewords[::-1] * 3]
    )


def corners(levels, block):
    """Every point of a small grid."""
    return np.array(list(itertools.product(levels, repeat=block)))
