"""verdict: where a peer is faster than every kvq codec of its bits and its error.

A kvq row stands against a peer's if it has at most SIZE times its bits and ERROR times its
relative MSE, on the same keys or values and as many threads. The peer wins if its time, in A,
is less than that of every such row; where there is no such row it wins unopposed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

SIZE: Final = 1.02
ERROR: Final = 1.05
WAYS: Final = ("encode", "decode")


def violations(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each peer, role, number of threads and way in which it wins."""
    return [found for row in rows if row["kind"] == "peer" for found in _of(row, rows)]


def _of(peer: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    against = [row for row in rows if row["kind"] == "kvq" and comparable(row, peer)]
    for way in WAYS:
        best = min(against, key=lambda row: float(row[f"{way}_per_cast"]), default=None)
        mine = peer[f"{way}_per_cast"]
        if best is None or best[f"{way}_per_cast"] > mine:
            yield {
                "peer": peer["name"],
                "role": peer["role"],
                "threads": peer["threads"],
                "way": way,
                "peer_per_cast": mine,
                "kvq": best and best["name"],
                "kvq_per_cast": best and best[f"{way}_per_cast"],
            }


def comparable(row: dict[str, Any], peer: dict[str, Any]) -> bool:
    """Whether a kvq row stands against a peer's."""
    return (
        (row["role"], row["threads"]) == (peer["role"], peer["threads"])
        and row["bits"] <= SIZE * peer["bits"]
        and row["relative_mse"] <= ERROR * peer["relative_mse"]
    )
