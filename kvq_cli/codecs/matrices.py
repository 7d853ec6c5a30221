"""matrices: those of a basis table and of an encoder, as floats, kept for the pages that follow.

Spec: formats/codecs/transform.md, section "Exactness".
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.basis import Basis, Group
from kvq_cli.numerics.exact import product, squared
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.record import record

FLOAT32: Final = 0.99 * 2.0**48  # the square of what sums of products may reach in float32
KEPT: Final = 4  # groups whose matrices a process keeps
FORWARD: Final = ("matrix", "in", "out")


@record(eq=False)
class Forward:
    """How an encoder gets from a group's dimensions to components."""

    whole: NDArray[np.int16]  # (dimensions, rank)
    matrix: NDArray[np.float64]  # the same
    scale: NDArray[np.float32]  # of each dimension, before it is rounded to an integer
    unit: NDArray[np.float64]  # (rank, 1)


def forward_name(basis: str, number: int, part: str) -> str:
    """Under which an encoder finds its matrices in `scratch.tables`."""
    return f"{basis}/forward.{number}.{part}"


def forward_of(basis: str, number: int, scratch: Scratch) -> Forward:
    """The matrices of a group, as an encoder takes them."""
    names = [forward_name(basis, number, part) for part in FORWARD]
    matrix, inward, outward = (scratch.tables[name] for name in names)
    found = _HELD_FORWARD.get(names[0])
    # The digest is the basis's: another encoder may have other matrices for it.
    if found is None or found.whole is not matrix:
        unit = np.ldexp(1.0, -outward.astype(np.int32))[:, None]
        found = Forward(matrix, matrix.astype(np.float64), two_to(inward), unit)
        _keep(_HELD_FORWARD, names[0], found)
    return found


# Tables are named by the digest of their bytes: what was made of one serves every container.
_HELD_FORWARD: dict[str, Forward] = {}
_HELD_BASIS: dict[str, Basis] = {}
_LOCK: Final = Lock()


def _keep(held: dict[str, Any], name: str, value: Any) -> None:
    with _LOCK:
        while len(held) >= KEPT:
            del held[next(iter(held))]
        held[name] = value


def basis_of(digest: str, scratch: Scratch) -> Basis:
    """The basis in a table."""
    found = _HELD_BASIS.get(digest)
    if found is None:
        found = Basis.from_bytes(scratch.tables[digest])
        _keep(_HELD_BASIS, digest, found)
    return found


@lru_cache(maxsize=KEPT)
def restore_of(group: Group, kind: type) -> NDArray[Any]:
    """The restore matrix as floats of this kind."""
    return group.restore.astype(kind)


@lru_cache(maxsize=KEPT)
def _longest(group: Group) -> float:
    """The largest square of the length of a column of the restore matrix."""
    columns = np.ascontiguousarray(group.restore.T, np.float64)
    return float(squared(columns).max(initial=0))


def exact_kind(values: NDArray[np.float32], group: Group, scratch: Scratch) -> type:
    """float32 where no sum of products can be rounded in it: by Cauchy and Schwarz."""
    squares = scratch.take("transform.squares", values.shape, np.float32)
    np.multiply(values, values, out=squares)
    # Rounded, but far less than FLOAT32 leaves room for.
    tokens = product(np.ones((1, len(values)), np.float32), squares)
    return np.float32 if float(tokens.max(initial=0)) * _longest(group) < FLOAT32 else np.float64


def two_to(exponents: NDArray[np.int16]) -> NDArray[np.float32]:
    """2**exponents, exact."""
    return np.ldexp(np.float32(1), exponents.astype(np.int32))
