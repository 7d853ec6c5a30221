"""fibquant_draws: the generator of a seed, and its numbers.

Part of the reference reader: written from `formats/fibquant-compat.md` alone, without kvq_cli
and without NumPy. Slow: for small profiles.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from typing import Any

U32, U64 = 2**32 - 1, 2**64 - 1
EXACT = Context(prec=50)


class Stream:
    """Draws of a seed."""

    def __init__(self, seed: int) -> None:
        self.key, state = [], seed
        for _ in range(8):
            state = (state * 6364136223846793005 + 11634580027462260723) & U64
            word = (((state >> 18) ^ state) >> 27) & U32
            turn = state >> 59
            self.key.append(((word << 32 | word) >> turn) & U32)
        self.block, self.words = 0, []
        self.normal_table = table(
            3.6541528853610088,
            0.00492867323399,
            lambda x: float(EXACT.exp(Decimal(-x * x / 2))),
            lambda y: math.sqrt(-2 * float(EXACT.ln(Decimal(y)))),
        )
        self.exponential_table = table(
            7.69711747013104972,
            0.0039496598225815571993,
            lambda x: float(EXACT.exp(Decimal(-x))),
            lambda y: -float(EXACT.ln(Decimal(y))),
        )

    def draw(self) -> int:
        if not self.words:
            self.words = chacha(self.key, self.block)
            self.block += 1
        low, high = self.words.pop(0), self.words.pop(0)
        return low | high << 32

    def uniform(self) -> float:
        return (self.draw() >> 11) * 2.0**-53

    def open_uniform(self) -> float:
        return (2 * (self.draw() >> 12) + 1) * 2.0**-53

    def normal(self) -> float:
        x, f = self.normal_table
        while True:
            b = self.draw()
            i, v = b % 256, ((b >> 12) * 2.0**-51 - 1) * x[b % 256]
            if abs(v) < x[i + 1]:
                return v
            if i == 0:
                while True:
                    s, t = math.log(self.open_uniform()) / x[1], math.log(self.open_uniform())
                    if not -2 * t < s * s:
                        return s - x[1] if v < 0 else x[1] - s
            if f[i + 1] + (f[i] - f[i + 1]) * self.uniform() < math.exp(-v * v / 2):
                return v

    def exponential(self) -> float:
        x, f = self.exponential_table
        while True:
            b = self.draw()
            i, v = b % 256, (2 * (b >> 12) + 1) * 2.0**-53 * x[b % 256]
            if v < x[i + 1]:
                return v
            if i == 0:
                return x[1] - math.log(self.uniform())
            if f[i + 1] + (f[i] - f[i + 1]) * self.uniform() < math.exp(-v):
                return v

    def gamma(self, shape: float) -> float:
        if shape == 1:
            return self.exponential()
        g = shape - 1 / 3
        c = 1 / math.sqrt(9 * g)
        while True:
            n = self.normal()
            r = 1 + c * n
            if r <= 0:
                continue
            v, u, q = r * r * r, self.open_uniform(), n * n
            quick = u < 1 - 0.0331 * q * q
            if quick or math.log(u) < 0.5 * q + g * (1 - v + math.log(v)):
                return g * v


TABLES: dict[float, Any] = {}


def table(r: float, v: float, f: Any, inverse: Any) -> Any:
    if r not in TABLES:
        x = [v / f(r), r]
        while len(x) < 256:
            x.append(inverse(v / x[-1] + f(x[-1])))
        x.append(0.0)
        TABLES[r] = x, [float(format(f(edge), ".18f")) for edge in x]
    return TABLES[r]


def chacha(key: list[int], block: int) -> list[int]:
    constants = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    start = [*constants, *key, block & U32, block >> 32, 0, 0]
    w = list(start)

    def step(a: int, b: int, d: int, turn: int) -> None:
        w[a] = (w[a] + w[b]) & U32
        w[d] ^= w[a]
        w[d] = (w[d] << turn | w[d] >> 32 - turn) & U32

    def quarter(a: int, b: int, c: int, d: int) -> None:
        step(a, b, d, 16)
        step(c, d, b, 12)
        step(a, b, d, 8)
        step(c, d, b, 7)

    for _ in range(4):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return [(a + b) & U32 for a, b in zip(w, start, strict=True)]
