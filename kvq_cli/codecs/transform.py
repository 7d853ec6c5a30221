"""transform: rows of several heads and layers decorrelated, quantised alike, entropy coded.

Spec: formats/codecs/transform.md, revision 1; formats/transform.md for basis tables.

    x     all channels of all heads of a group of layers, of one token; keys with their rotary
          positions undone
    y     (x - means) · forward         the components, each independent of the others
    q     y / step to the nearest integer, but 0 below 0.56
    v     q in sixteenths, moved to the centroid of its cell by the component's class
    x'    means + v · restore · step / 16

What the matrices are worth is the business of whoever calibrates: errors of components weigh
alike, so one step serves all.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs import Codec, Larger, refuse_non_finite
from kvq_cli.codecs.basis import Group, Turn
from kvq_cli.codecs.matrices import basis_of, exact_kind, forward_of, restore_of, two_to
from kvq_cli.codecs.rotary import turn_rows
from kvq_cli.errors import CodecError
from kvq_cli.numerics import rans, rows
from kvq_cli.numerics.bits import LARGEST, narrow, widen
from kvq_cli.numerics.choosing import choose
from kvq_cli.numerics.exact import product, require_subnormals
from kvq_cli.numerics.groups import Groups
from kvq_cli.numerics.lanes import lanes_for
from kvq_cli.numerics.models import models
from kvq_cli.numerics.restore import limit
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import Page, PageSpec
from kvq_cli.planes import Layout, Plane, Planes
from kvq_cli.record import record
from kvq_cli.words import TableSpec

STEP: Final = 65536  # parts of a unit that `step` counts
PARTS: Final = 16  # of a step that restored components count
ZERO: Final = 0.56  # half the width of the cell of 0, in steps
MOST: Final = float(1 << 20)  # that no quantised component reaches
REACH: Final = float(1 << 24)  # that no integer dimension passes
TILE: Final = 256  # tokens that are multiplied at a time
TOKENS: Final = Groups("token")


@record
class Transform(Codec):
    """Whose matrices, and how fine; what is None is bound when a capture is compressed."""

    name: ClassVar[str] = "transform"
    revision: ClassVar[int] = 1
    lossless: ClassVar[bool] = False
    placed: ClassVar[bool] = True

    basis: str | None = field(default=None, metadata={"pattern": "^blake3:[0-9a-f]{64}$"})
    size: int | None = field(default=None, metadata={"minimum": 32, "maximum": 1 << 26})
    step: int | None = field(default=None, metadata={"minimum": 1, "maximum": 1 << 24})
    turned: bool = True  # keys hold rotary positions

    def __post_init__(self) -> None:
        if (self.basis is None) != (self.size is None):
            raise ValueError("basis and size come together")

    def tables(self) -> tuple[TableSpec, ...]:
        if self.basis is None or self.size is None:
            return ()
        return (TableSpec("|u1", (self.size,), self.basis),)

    def layout(self, spec: PageSpec) -> Layout:
        lanes = lanes_for(spec.tokens, spec.heads * spec.channels)
        return (
            Plane("classes", "|u1", (spec.heads * spec.channels,), "C", open=True),
            Plane("states", "<u4", (lanes,), "S"),
            Plane("words", "<u2", (spec.nbytes // 2,), "W", open=True),
        )

    def check_spec(self, spec: PageSpec) -> None:
        if spec.place is None:
            raise CodecError("E501", "transform: a page that lies nowhere")
        if self.basis is None or self.step is None:
            raise CodecError("E501", "transform is not bound to a calibration and a step")

    def encode(self, page: Page, scratch: Scratch) -> Planes:
        require_subnormals()
        number, group, turn = self._group(page.spec, scratch)
        peaks = rows.peaks(page.bits, page.spec.dtype, TOKENS, scratch)
        refuse_non_finite(self.name, page, peaks, page.spec.dtype)
        forward = forward_of(str(self.basis), number, scratch)
        quantised = scratch.take("transform.q", (group.rank, page.spec.tokens), np.int32)
        factor = forward.unit * (STEP / (self.step or 1))
        for start in range(0, page.spec.tokens, TILE):
            stop = min(start + TILE, page.spec.tokens)
            dimensions = _dimensions(page, group, turn, forward.scale, start, stop, scratch)
            found = scratch.take("transform.y", (group.rank, stop - start), np.float64)
            product(forward.matrix.T, dimensions.T, out=found)
            np.multiply(found, factor, out=found)
            _quantise(found, quantised[:, start:stop], scratch)
        return _coded(page.spec, quantised, scratch)

    def check(self, planes: Planes, spec: PageSpec) -> None:
        """Words are left to decoding."""
        classes = planes["classes"]
        if len(classes) > spec.heads * spec.channels:
            raise CodecError("E502", "transform: more components than dimensions")
        if len(classes) and int(classes.max()) >= len(models().classes):
            raise CodecError("E502", "transform: a class that there is not")
        if len(classes) and classes[-1] == 0:
            raise CodecError("E502", "transform: a last component that is absent")

    def check_words(self, planes: Planes, spec: PageSpec, scratch: Scratch) -> None:
        if self.basis is None or self.basis in scratch.tables:
            self._held_group(planes, spec, scratch)
        values = scratch.take("transform.v", (len(planes["classes"]), spec.tokens), np.float32)
        rans.decode(planes["states"], planes["words"], planes["classes"], values, scratch)

    def decode(self, planes: Planes, spec: PageSpec, into: Page, scratch: Scratch) -> None:
        require_subnormals()
        self.check(planes, spec)
        group, turn = self._held_group(planes, spec, scratch)
        classes = planes["classes"]
        shape = (len(classes), spec.tokens)
        values = scratch.take("transform.v", shape, np.float32)
        rans.decode(planes["states"], planes["words"], classes, values, scratch)
        kind = exact_kind(values, group, scratch)
        matrix = restore_of(group, kind)[: len(classes)]
        held = scratch.take("transform.held", shape, kind) if kind is np.float64 else values
        np.copyto(held, values)
        scale = np.float32((self.step or 1) / STEP / PARTS) * two_to(-group.exponents)
        for start in range(0, spec.tokens, TILE):
            stop = min(start + TILE, spec.tokens)
            found = scratch.take("transform.x", (stop - start, group.dimensions), kind)
            product(held[:, start:stop].T, matrix, out=found)
            _place(found, spec, into, group, turn, scale, start, scratch)

    def _held_group(
        self, planes: Planes, spec: PageSpec, scratch: Scratch
    ) -> tuple[Group, Turn | None]:
        """The group of a page that was written, and its positions."""
        try:
            _, group, turn = self._group(spec, scratch)
        except CodecError as refusal:
            raise CodecError("E502", str(refusal)) from refusal
        count = len(planes["classes"])
        if count > group.rank:
            raise CodecError("E502", f"transform: {count} components of {group.rank}")
        return group, turn

    def _group(self, spec: PageSpec, scratch: Scratch) -> tuple[int, Group, Turn | None]:
        """The group of a page, its number, and the positions that its keys have."""
        self.check_spec(spec)
        basis, place = basis_of(str(self.basis), scratch), spec.place
        assert place is not None
        number = basis.number(place.role, place.layer, place.layers)
        if number is None:
            raise CodecError("E501", "transform: the calibration has no group of these layers")
        group = basis.groups[number]
        if (spec.heads, spec.channels) != (group.layers * group.heads, group.channels):
            raise CodecError("E501", "transform: the page holds not all heads of its group")
        turn = basis.turns[group.turn] if group.turn is not None and self.turned else None
        if turn is not None and place.position + spec.tokens > turn.positions:
            raise CodecError("E501", f"transform: positions end at {turn.positions}")
        return number, group, turn


def _dimensions(
    page: Page,
    group: Group,
    turn: Turn | None,
    scale: NDArray[np.float32],
    start: int,
    stop: int,
    scratch: Scratch,
) -> NDArray[np.float64]:
    """Integers (tokens, dimensions), of tokens of the page."""
    shape = (page.spec.heads, stop - start, page.spec.channels)
    wide = scratch.take("transform.wide", shape, np.float32)
    widen(page.bits[:, start:stop], page.spec.dtype, wide)
    by_head = (page.spec.heads, 1, page.spec.channels)
    with np.errstate(over="ignore", invalid="ignore"):
        if turn is not None:
            place = page.spec.place
            assert place is not None
            turn_rows(wide, turn, place.position + start, scratch, back=True)
        np.subtract(wide, group.means.reshape(by_head), out=wide)
        np.multiply(wide, scale.reshape(by_head), out=wide)
        np.rint(wide, out=wide)
        if not max(float(wide.max()), -float(wide.min())) <= REACH:
            raise CodecError("E501", "transform: a row is too far from those calibrated on")
    whole = scratch.take("transform.whole", (stop - start, group.dimensions), np.float64)
    np.copyto(whole.reshape(stop - start, *shape[::2]).transpose(1, 0, 2), wide)
    return whole


def _quantise(values: NDArray[np.float64], out: NDArray[np.int32], scratch: Scratch) -> None:
    """Components in steps to integers; destroys `values`."""
    whole = scratch.take("transform.rint", values.shape, np.float64)
    np.rint(values, out=whole)
    np.abs(values, out=values)
    if not float(values.max(initial=0)) < MOST:
        raise CodecError("E501", "transform: a component is beyond 2**20 steps")
    kept = scratch.take("transform.kept", values.shape, np.bool_)
    np.greater_equal(values, ZERO, out=kept)
    np.multiply(whole, kept, out=whole)
    np.copyto(out, whole, casting="unsafe")


def _coded(spec: PageSpec, quantised: NDArray[np.int32], scratch: Scratch) -> Planes:
    lanes = lanes_for(spec.tokens, spec.heads * spec.channels)
    classes = choose(quantised, scratch)
    present = np.flatnonzero(classes)
    count = int(present[-1]) + 1 if len(present) else 0
    classes = classes[:count]
    states, words = rans.encode(quantised[:count], classes, lanes, scratch)
    if words.nbytes > spec.nbytes:
        raise Larger("transform")
    return {"classes": classes, "states": states, "words": words}


def _place(
    found: NDArray[Any],
    spec: PageSpec,
    into: Page,
    group: Group,
    turn: Turn | None,
    scale: NDArray[np.float32],
    start: int,
    scratch: Scratch,
) -> None:
    """Sums of products (tokens, dimensions) become elements of the page."""
    tokens, stop = len(found), start + len(found)
    by_head = (spec.heads, 1, spec.channels)
    wide = scratch.take("transform.wide", (spec.heads, tokens, spec.channels), np.float32)
    np.copyto(
        wide, found.reshape(tokens, spec.heads, spec.channels).transpose(1, 0, 2), casting="unsafe"
    )
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(wide, scale.reshape(by_head), out=wide)
        np.add(wide, group.means.reshape(by_head), out=wide)
        if turn is not None:
            assert spec.place is not None
            turn_rows(wide, turn, spec.place.position + start, scratch, back=False)
        target = into.spec.dtype
        # A sum of two that are both too large is no number: it counts as 0.
        if not max(float(wide.max()), -float(wide.min())) < LARGEST[target]:
            np.nan_to_num(wide, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)
            limit(wide, spec.dtype, target)
    rounded = scratch.take("transform.out", wide.shape, into.bits.dtype)
    narrow(wide, target, rounded, scratch)
    np.copyto(into.bits[:, start:stop], rounded)
