"""packed: blocks in which tokens or channels are split give NumPy's rows, in every order."""

from __future__ import annotations

import os
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from kvq_cli.capture.binding import Binding, slabs_of
from kvq_cli.capture.sink import Sink
from kvq_cli.capture.slab import read_rows, write_rows
from kvq_cli.capture.source import Source
from kvq_cli.words import Role
from support.captures import kv_bits, safetensors_bytes

LENGTHS = {"T": 3, "R": 2, "H": 3, "t": 2, "u": 2, "D": 3, "d": 2}
INNER = ["".join(order) for letters in ("HtuDd", "HuD", "tDd") for order in permutations(letters)]


def expected_rows(bits: np.ndarray, order: str) -> np.ndarray:
    """(role, heads, tokens, channels) of elements in an order."""
    missing = [letter for letter in "RHTtuDd" if letter not in order]
    axes = [*order, *missing]
    full = bits.reshape(bits.shape + (1,) * len(missing))
    full = full.transpose([axes.index(letter) for letter in "RHTtuDd"])
    roles, heads, *tokens = full.shape[:5]
    return full.reshape(roles, heads, int(np.prod(tokens)), -1)


def spans(tokens: int) -> list[slice]:
    """Within a block, across blocks, and the last token."""
    ranges = [(1, 2), (tokens // 4, tokens - 1), (tokens - 1, tokens)]
    return [slice(start, max(start + 1, stop)) for start, stop in ranges]


@pytest.mark.parametrize("outer", ["T", "TR", "RT"])
@pytest.mark.parametrize("inner", INNER)
def test_every_order(tmp_path: Path, inner: str, outer: str) -> None:
    """Some heads and tokens are read, and written without a change of any other byte."""
    order = outer + inner
    lengths = {letter: LENGTHS[letter] for letter in order}
    bits = kv_bits(tuple(lengths.values()), "F16", 1)
    data = safetensors_bytes(
        {"pad": ("U8", (3,), b"abc"), "kv": ("F16", bits.shape, bits.tobytes())}
    )
    (tmp_path / "a").write_bytes(data)
    rows = expected_rows(bits, order)
    roles = (Role.KEY, Role.VALUE) if "R" in order else (Role.KEY,)
    fd = os.open(tmp_path / "b", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, len(data))
    with Source(tmp_path / "a") as source:
        tensor = source.header.tensors[1]
        for slab in slabs_of(Binding(tensor, roles, order, lengths)):
            wanted = rows[roles.index(slab.role)]
            assert (slab.heads, slab.tokens, slab.channels) == wanted.shape
            for span in spans(slab.tokens):
                heads = [slab.heads - 1, 0][: slab.heads]
                out = np.empty(wanted[heads, span].shape, "<u2")
                read_rows(source, slab, heads, span.start, span.stop, out)
                np.testing.assert_array_equal(out, wanted[heads, span])
                write_rows(Sink([fd]), slab, heads, span.start, span.stop, out)
    os.close(fd)
    sparse = np.zeros_like(rows)
    for span in spans(rows.shape[2]):
        heads = [rows.shape[1] - 1, 0]
        sparse[:, heads, span] = rows[:, heads, span]
    written = (tmp_path / "b").read_bytes()
    found = np.frombuffer(written[tensor.start : tensor.stop], "<u2").reshape(bits.shape)
    np.testing.assert_array_equal(expected_rows(found, order), sparse)
    assert not any(written[: tensor.start])
