"""centred: what a codec does with `center`: means taken off first and added last.

Spec: formats/codecs/README.md, section "Centring".

    means     of each head and channel, in the page's dtype
    centred   of each token, whether they are taken off it: a token that the means would make
              larger, as they do the first of a sequence, is left as it is

Codecs with a scale per channel have no choice, and no second plane.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs import NonFinite
from kvq_cli.errors import CodecError
from kvq_cli.numerics import rows
from kvq_cli.numerics.bits import INFINITY, LARGEST, WIDE_HALF, WIDE_INFINITY, widen
from kvq_cli.numerics.centre import Block, Means, blocks, centre, widened
from kvq_cli.numerics.groups import Axis, Groups
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import part
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import Layout, Plane, Planes

TOKENS: Final = Groups("token")
WINDOW: Final = 128  # channels up to which a token's halves are reduced faster as float32


def planes_of(spec: PageSpec, axis: Axis) -> Layout:
    """The planes that `center` adds to a codec whose scales lie along this axis."""
    means = Plane("means", spec.dtype.bits, (spec.heads, 1, spec.channels), "H1D")
    if axis == "channel":
        return (means,)
    return means, Plane("centred", "|u1", (spec.heads, spec.tokens, 1), "HT1")


def source(
    codec: str, page: Page, planes: dict[str, NDArray[Any]], scratch: Scratch, *, whole: bool
) -> Iterator[Block]:
    """The blocks of a page; with planes of means, centred, and these filled.

    Those that are centred are known to be finite; of the others the caller has yet to look.
    """
    dtype = page.spec.dtype
    for block in blocks(page, scratch, whole=whole or "means" in planes):
        if "means" not in planes:
            yield block
            continue
        # As float32 first: its bits are reduced in half the time of those of halves.
        wide = widened(block)
        peaks = rows.peaks(wide.bits, DType.F32, TOKENS, scratch)
        if int(peaks.max(initial=0)) >= WIDE_INFINITY[dtype]:
            raise NonFinite(codec, page)
        reach = peaks.view(np.float32)
        means = part(planes["means"], block.tile)
        centred = centre(wide, reach.max(axis=1, keepdims=True), means, dtype, scratch)
        if "centred" in planes:
            chosen = planes["centred"][block.tile]
            centred = _smaller(centred, page.bits[block.tile], dtype, reach, chosen, scratch)
        yield centred


def reached(
    codec: str, page: Page, block: Block, groups: Groups, scratch: Scratch
) -> NDArray[np.float32]:
    """The largest magnitude of each group; NonFinite where there is none."""
    if block.reach is not None:
        return block.reach
    bits, dtype, unit = block.bits, block.dtype, np.float32(1)
    infinity = INFINITY[dtype]
    if dtype is DType.F16 and groups == TOKENS and bits.shape[2] <= WINDOW:
        bits, dtype, unit = block.values.view(np.uint32), DType.F32, block.unit
        infinity = WIDE_HALF
    peaks = rows.peaks(bits, dtype, groups, scratch)
    if int(peaks.max(initial=0)) >= infinity:
        raise NonFinite(codec, page)
    return rows.values(peaks, dtype) * unit


def _smaller(
    centred: Block,
    bits: NDArray[Any],
    dtype: DType,
    reach: NDArray[np.float32],
    chosen: NDArray[np.uint8],
    scratch: Scratch,
) -> Block:
    """Each token centred or as it was, with these bits, whichever reaches less far."""
    after = rows.peaks(centred.bits, DType.F32, TOKENS, scratch).view(np.float32)
    np.less(after, reach, out=chosen.view(np.bool_))
    if not chosen.all():
        others = chosen[..., 0] == 0
        words = bits[others]
        plain = np.empty(words.shape, np.float32)
        widen(words, dtype, plain)
        centred.values[others] = plain
    return replace(centred, reach=np.minimum(after, reach))


def check_centred(planes: Planes, spec: PageSpec, codec: str) -> None:
    """CodecError E502 where a mean is infinite or NaN, or a choice neither 0 nor 1."""
    if "means" in planes and not rows.all_finite(planes["means"], spec.dtype):
        raise CodecError("E502", f"{codec}: a mean is not finite")
    if "centred" in planes and int(planes["centred"].max()) > 1:
        raise CodecError("E502", f"{codec}: a token is neither centred nor not")


def means_of(planes: Planes, spec: PageSpec) -> Means | None:
    """What is to be added on the way back."""
    if "means" not in planes:
        return None
    return Means(rows.values(planes["means"], spec.dtype), planes.get("centred"))


def furthest(dtype: DType, *, center: bool) -> float:
    """The largest magnitude that a codec can meet: of a number, or of the difference of two."""
    # Heads whose differences could overflow float32 are not centred.
    return min(LARGEST[dtype] * (2 if center else 1), LARGEST[DType.F32])
