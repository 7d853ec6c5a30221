"""chacha8: the generator that all random numbers of fib_quant come from.

Spec: formats/fibquant-compat.md, section "Generator".

    seed s    key = 8 outputs of PCG-XSH-RR 64/32 started at s, the step before each output
    block b   ChaCha with 8 rounds: constants, key, b as 64 bits, stream 0 as 64 bits
    draw      two words of the keystream, the low one first

Blocks stand side by side in arrays, so the rounds are a few hundred array operations,
whatever the number of blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 8  # u64 of one block

_MULTIPLIER: Final = 6364136223846793005
_INCREMENT: Final = 11634580027462260723
_U32: Final = 2**32 - 1
_U64: Final = 2**64 - 1
_CONSTANTS: Final = tuple(
    int.from_bytes(b"expand 32-byte k"[at : at + 4], "little") for at in range(0, 16, 4)
)
_DOUBLE_ROUNDS: Final = 4
_COLUMNS: Final = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS: Final = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def key_words(seed: int) -> list[int]:
    """The eight key words of a 64-bit seed."""
    words, state = [], seed
    for _ in range(8):
        state = (state * _MULTIPLIER + _INCREMENT) & _U64
        shifted = (((state >> 18) ^ state) >> 27) & _U32
        turn = state >> 59
        words.append(((shifted >> turn) | (shifted << (-turn & 31))) & _U32)
    return words


def draws(key: Sequence[int], first: int, count: int) -> NDArray[np.uint64]:
    """The u64 draws of `count` blocks from block `first` on."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    words = np.empty((16, count), np.uint32)
    for at, word in enumerate((*_CONSTANTS, *key)):
        words[at] = word
    words[12] = numbers & np.uint64(_U32)
    words[13] = numbers >> np.uint64(32)
    words[14:] = 0
    stream = words.copy()
    for _ in range(_DOUBLE_ROUNDS):
        for quarter in (*_COLUMNS, *_DIAGONALS):
            _quarter_round(stream, *quarter)
    stream += words
    wide = stream.astype(np.uint64)
    return (wide[0::2] | wide[1::2] << np.uint64(32)).T.reshape(-1)


def _quarter_round(words: NDArray[Any], a: int, b: int, c: int, d: int) -> None:
    for into, other, turned, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        words[into] += words[other]
        mixed = words[turned] ^ words[into]
        words[turned] = mixed << np.uint32(turn) | mixed >> np.uint32(32 - turn)
