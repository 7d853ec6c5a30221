"""rans: quantised coefficients as states and words, and back.

Spec: formats/codecs/README.md, section "Coefficients".

    states    u32 [lanes], what a decoder begins with
    words     u16: the stream that its steps take from, lane after lane, then the escapes
    classes   u8 [C], which say by what model each component is coded

A step is one component of a row of tokens, a lane each. Encoders go from the last to the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.numerics.models import models, values_of
from kvq_cli.numerics.rans_reader import Reader
from kvq_cli.numerics.rans_writer import Writer
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.symbols import Head, Symbols


def encode(
    q: NDArray[np.int32], classes: NDArray[np.uint8], lanes: int, scratch: Scratch
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """States and words of coefficients (C, T); CodecError where one is 2**20 or more."""
    symbols = Symbols.of(q, classes, lanes, scratch)
    writer = Writer(symbols, lanes, scratch)
    for start in reversed(range(0, len(symbols.places), writer.block)):
        writer.put(start)
    words = np.concatenate((writer.stream(), symbols.escapes.astype("<i4").view("<u2")))
    return writer.states.astype("<u4"), words.astype("<u2", copy=False)


def decode(
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    classes: NDArray[np.uint8],
    out: NDArray[Any],
    scratch: Scratch,
) -> None:
    """Coefficients (C, T): q if `out` is int32; restored, in sixteenths, if it is float32.

    CodecError where no encoder writes such states, words and classes.
    """
    numbers, known = classes.tolist(), models().classes
    if max(numbers, default=0) >= len(known):
        raise CodecError("E502", f"a class is {max(numbers)}: {len(known) - 1} is the last")
    whole = out.dtype == np.int32
    reader, head = Reader(states, words, out.shape[1], scratch), Head.of(classes)
    for component, (number, line) in enumerate(zip(numbers, out, strict=True)):
        model = known[number]
        if model.shift:
            reader.get_shifted(number, line, 1 if whole else 16)
        elif number:
            in_head = component in head.components
            reader.get(model, values_of(number, whole=whole), line, in_head=in_head)
        else:
            line.fill(0)
    reader.finish(head, classes, out)
