"""draws: normal, exponential and gamma numbers out of one stream of ChaCha8.

Spec: formats/fibquant-compat.md, section "Draws".

    uniform        (b >> 11) · 2⁻⁵³              in [0, 1)
    open uniform   (2 · (b >> 12) + 1) · 2⁻⁵³    in (0, 1)
    normal         ziggurat of u = (b >> 12) · 2⁻⁵¹ - 1 in layer b mod 256
    exponential    ziggurat of the open uniform in layer b mod 256
    gamma          Marsaglia and Tsang (2000); the exponential for shape 1

What 99 of 100 draws need is computed for a buffer of draws at once, by operations that are
exact or correctly rounded. exp and ln are the machine's, as in the reference: exp decides
about 1 normal in 100, ln makes about 1 in 4,000 and takes part in gammas.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from kvq_cli.contract.compat import chacha8, ziggurat

_BLOCKS: Final = 1024  # of ChaCha, a buffer: 8,192 draws
_THIRD: Final = 1.0 / 3.0


class Draws:
    """Numbers of one seed, in the order in which they are asked for."""

    def __init__(self, seed: int) -> None:
        self._key = chacha8.key_words(seed)
        self._block = 0
        self._normal_table = ziggurat.normal()
        self._exponential_table = ziggurat.exponential()
        self._fill()

    def normal(self) -> float:
        """A number of the standard normal distribution."""
        while True:
            at = self._next()
            value = self._normal[at]
            if self._inside[at] or self._at_the_edge(value, layer := self._layer[at]):
                return value
            if layer == 0:
                return self._normal_tail(value)

    def exponential(self) -> float:
        """A number of the exponential distribution of mean 1."""
        edges, heights = self._exponential_table.edges, self._exponential_table.heights
        while True:
            at = self._next()
            layer = self._layer[at]
            value = self._open[at] * edges[layer]
            if value < edges[layer + 1]:
                return value
            if layer == 0:
                return edges[1] - math.log(self.uniform())
            low, high = heights[layer], heights[layer + 1]
            if high + (low - high) * self.uniform() < math.exp(-value):
                return value

    def gamma(self, shape: float) -> float:
        """A number of the gamma distribution of scale 1 and a shape of at least 1."""
        if shape == 1.0:
            return self.exponential()
        d = shape - _THIRD
        c = 1.0 / math.sqrt(9.0 * d)
        while True:
            x = self.normal()
            root = 1.0 + c * x
            if root <= 0.0:
                continue
            v = root * root * root
            u = self.open_uniform()
            square = x * x
            if u < 1.0 - 0.0331 * square * square or math.log(u) < 0.5 * square + d * (
                1.0 - v + math.log(v)
            ):
                return d * v

    def uniform(self) -> float:
        at = self._next()
        return (self._bits[at] >> 11) * 2.0**-53

    def open_uniform(self) -> float:
        at = self._next()
        return self._open[at]

    def _at_the_edge(self, value: float, layer: int) -> bool:
        """Whether a normal outside the inner part of its layer lies below the density."""
        if layer == 0:
            return False
        heights = self._normal_table.heights
        low, high = heights[layer], heights[layer + 1]
        return high + (low - high) * self.uniform() < math.exp(-value * value / 2.0)

    def _normal_tail(self, value: float) -> float:
        """Marsaglia's method beyond R, on the side where `value` lies."""
        tail = self._normal_table.edges[1]
        x, y = 1.0, 0.0
        while -2.0 * y < x * x:
            x = math.log(self.open_uniform()) / tail
            y = math.log(self.open_uniform())
        return x - tail if value < 0.0 else tail - x

    def _next(self) -> int:
        """The place of the next draw. Look up the buffer after the call: it may be a new one."""
        if self._at == len(self._bits):
            self._fill()
        self._at += 1
        return self._at - 1

    def _fill(self) -> None:
        bits = chacha8.draws(self._key, self._block, _BLOCKS)
        edges = np.array(self._normal_table.edges)
        layer = (bits & np.uint64(255)).astype(np.intp)
        mantissa = (bits >> np.uint64(12)).astype(np.float64)
        normal = (mantissa * 2.0**-51 - 1.0) * edges[layer]
        self._bits: list[int] = bits.tolist()
        self._layer: list[int] = layer.tolist()
        self._open: list[float] = ((2.0 * mantissa + 1.0) * 2.0**-53).tolist()
        self._normal: list[float] = normal.tolist()
        self._inside: list[bool] = (np.abs(normal) < edges[layer + 1]).tolist()
        self._block += _BLOCKS
        self._at = 0
