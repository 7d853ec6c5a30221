"""grids: what formats/codecs/README.md says of int4 and kivi, slowly and plainly.

Numbers are float64, and `single` rounds each result to float32: products of two float32 are
exact in float64, and sums and quotients rounded twice are as if rounded once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from kvq_cli.codecs import page_of
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec

KINDS = {DType.F16: np.float16, DType.BF16: ml_dtypes.bfloat16, DType.F32: np.float32}
LARGEST = {DType.F16: 65504.0, DType.BF16: 255 * 2.0**120, DType.F32: (2**24 - 1) * 2.0**104}
DIGITS = {DType.F16: 11, DType.BF16: 8, DType.F32: 24}
SMALLEST = {DType.F16: -24, DType.BF16: -133, DType.F32: -149}


@dataclass(frozen=True)
class Grid:
    """The parameters of int4 or kivi, as one thing."""

    axis: str = "token"
    group: int = 32
    bits: int = 4
    scale: str = "f16"
    zeroed: bool = True
    center: bool = False


def page(values: Any, dtype: DType) -> Page:
    """A page of numbers, rounded to the dtype; (T, D) stands for one head."""
    values = np.asarray(values, np.float32)
    values = values.reshape(-1, *values.shape[-2:])
    bits = values.astype(KINDS[dtype]).view(f"u{dtype.size}")
    return Page(PageSpec(*values.shape, dtype), bits)


def numbers(bits: Any, dtype: DType) -> Any:
    return bits.view(KINDS[dtype]).astype(np.float64)


def decoded(codec: Any, planes: Any, spec: PageSpec, dtype: DType | None = None) -> Any:
    """Bits that a codec restores."""
    into = page_of(PageSpec(*spec.shape, dtype or spec.dtype))
    codec.decode(planes, spec, into, Scratch())
    return into.bits


def single(values: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(np.float32).astype(np.float64)


def blocks(values: Any, grid: Grid) -> list[Any]:
    """The elements cut along the axis that groups lie along; each is one group thick."""
    axis = 2 if grid.axis == "token" else 1
    return np.split(values, range(grid.group, values.shape[axis], grid.group), axis=axis)


def stored(peak: Any, largest: float, scale: str, parts: int) -> Any:
    """Section "Scales", steps 1 to 3."""
    q = single(peak / largest)
    if scale == "f32":
        lifted = single(single(peak * 2.0**64) / largest)
        up = np.ceil(single(lifted * (2.0**85 / parts))) * (parts * 2.0**-149)
        return np.where((q < parts * 2.0**-126) & (peak > 0), up, q)
    assert q.max() < 65520
    up = np.maximum(1, np.ceil(single(q * 2.0**24))) * 2.0**-24
    with np.errstate(over="ignore"):
        return np.where((q < 2.0**-14) & (peak > 0), up, q.astype(np.float16))


def times_factor(values: Any, scale: Any) -> Any:
    """Section "Scales", step 4: values times r."""
    small = (np.abs(scale) < 2.0**-126) & (scale != 0)
    lift = np.where(small, 2.0**64, 1.0)
    factor = np.where(scale == 0, 0, single(1 / np.where(scale == 0, 1, scale * lift)))
    return single(single(values * lift) * factor)


def whole(values: Any) -> Any:
    """Integers, half to even, which know no minus zero."""
    return np.rint(values).astype(np.int64)


def encode_block(values: Any, grid: Grid) -> tuple[Any, Any, Any]:
    """Section "Grids": scales, zeros and codes of groups of one thickness."""
    axis = 2 if grid.axis == "token" else 1
    low, high = values.min(axis=axis, keepdims=True), values.max(axis=axis, keepdims=True)
    far = np.maximum(np.abs(low), np.abs(high))
    if not grid.zeroed:
        middle = 2 ** (grid.bits - 1)
        scale = stored(far, middle, grid.scale, 1)
        scale = np.where(high > -low, -scale, scale)
        codes = whole(times_factor(values, scale)) + middle
        return scale, whole(np.zeros(scale.shape)), np.where(codes == 2 * middle, codes - 1, codes)
    steps = (2**grid.bits - 1) / 2
    half = single(single(high * 0.5) - single(low * 0.5))
    reach = single(single(far * single(steps / 1792)) + np.minimum(far, 2.0**-149))
    scale = stored(np.maximum(half, reach), steps, grid.scale, 16)
    zero = whole(times_factor(low, scale) * 16)
    return scale, zero, whole(single(times_factor(values, scale) - zero / 16))


def means(values: Any, dtype: DType) -> Any:
    """Section "Centring", as float64."""
    heads, tokens, channels = values.shape
    found = np.zeros((heads, 1, channels))
    sample = values[:, :: math.ceil(tokens / 64)]
    for head in range(heads):
        peak = np.abs(values[head]).max()
        if peak < 2.0**126:
            exponent = max(math.frexp(peak)[1], -126) if peak else -126
            power = min(21 - exponent, 126)
            counts = np.rint(single(sample[head] * 2.0**power)).sum(axis=0)
            found[head, 0] = single(counts / sample.shape[1] * 2.0**-power)
    return found.astype(np.float32).astype(KINDS[dtype]).astype(np.float64)


def encode(original: Page, grid: Grid) -> dict[str, Any]:
    """Means and scales as float64, zeros and codes as integers, not packed."""
    values = numbers(original.bits, original.spec.dtype)
    taken, centred = np.zeros(1), np.zeros((*values.shape[:2], 1), bool)
    if grid.center:
        taken = means(values, original.spec.dtype)
        apart = np.abs(single(values - taken))
        centred = apart.max(axis=2, keepdims=True) < np.abs(values).max(axis=2, keepdims=True)
    placed = np.where(centred, single(values - taken), values)
    cut = [encode_block(block, grid) for block in blocks(placed, grid)]
    axis = 2 if grid.axis == "token" else 1
    parts = [np.concatenate(part, axis=axis) for part in zip(*cut, strict=True)]
    names = ("means", "centred", "scales", "zeros", "codes")
    return dict(zip(names, (taken, centred, *parts), strict=True))


def packed(codes: Any, bits: int) -> Any:
    """Section "Packed codes": each row is one long number, the first code lowest."""
    size = -(-codes.shape[2] * bits // 8)
    rows = [
        sum(int(code) << (bits * at) for at, code in enumerate(row)).to_bytes(size, "little")
        for row in codes.reshape(-1, codes.shape[2])
    ]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(*codes.shape[:2], size)


def spread(per_group: Any, grid: Grid, shape: tuple[int, ...]) -> Any:
    """What there is one of per group, for each element."""
    axis = 2 if grid.axis == "token" else 1
    return np.repeat(per_group, grid.group, axis=axis)[:, : shape[1], : shape[2]]


def restore(planes: dict[str, Any], grid: Grid, source: DType, target: DType) -> Any:
    """Section "Restoring": the bits, of planes as `encode` gives them."""
    codes = planes["codes"]
    scales, zeros = (spread(planes[name], grid, codes.shape) for name in ("scales", "zeros"))
    if grid.zeroed:
        values = single((16 * codes + zeros) * (scales / 16))
    else:
        values = single((codes - 2 ** (grid.bits - 1)) * scales) + 0.0
    values = np.where(planes["centred"], single(values + planes["means"]), values)
    if source is target:
        values = np.clip(values, -LARGEST[target], LARGEST[target])
    return values.astype(np.float32).astype(KINDS[target]).view(f"u{target.size}")


def bound(planes: dict[str, Any], grid: Grid, exact: Any, found: Any, dtype: DType) -> Any:
    """Section "Error" of int4 and kivi, for each element."""
    scales = spread(np.float64(planes["scales"]), grid, exact.shape)
    taken = np.where(planes["centred"], planes["means"], 0)
    steps = (exact - taken) / np.where(scales == 0, 1, scales)
    far = not grid.zeroed and steps > 2 ** (grid.bits - 1) - 0.51
    unit = np.exp2(np.maximum(np.frexp(found)[1] - DIGITS[dtype], SMALLEST[dtype]).astype(float))
    most = np.abs(scales) * np.where(far, 1.005, 0.501) + unit / 2 + 2.0**-150
    return most + np.where(planes["centred"], 2.0**-22 * (np.abs(exact) + np.abs(taken)), 0)


def grid_of(codec: Any) -> Grid:
    """The parameters of an Int4 or of a Kivi."""
    given = {"zeroed": getattr(codec, "zero_point", True)}
    for name in ("axis", "bits", "center"):
        if hasattr(codec, name):
            given[name] = getattr(codec, name)
    return Grid(group=codec.group, scale=codec.scale, **given)


def copies(codec: Any, original: Page) -> dict[str, Any]:
    """The planes of a page, which no later page overwrites."""
    planes = codec.encode(original, Scratch())
    return {name: plane.copy() for name, plane in planes.items()}


def check(codec: Any, original: Page) -> tuple[dict[str, Any], Any]:
    """Planes, restored bits and errors are as the spec says."""
    grid, dtype = grid_of(codec), original.spec.dtype
    planes, stated = copies(codec, original), encode(original, grid)
    assert np.array_equal(planes["scales"].astype(np.float64), stated["scales"])
    assert np.array_equal(planes["codes"], packed(stated["codes"], grid.bits))
    assert ("zeros" in planes) == grid.zeroed
    assert ("means" in planes) == grid.center
    if grid.zeroed:
        assert np.array_equal(planes["zeros"], stated["zeros"])
    if grid.center:
        assert np.array_equal(numbers(planes["means"], dtype), stated["means"])
        assert np.array_equal(planes["centred"], stated["centred"])
    restored = decoded(codec, planes, original.spec)
    assert np.array_equal(restored, restore(stated, grid, dtype, dtype))
    exact, found = numbers(original.bits, dtype), numbers(restored, dtype)
    assert (np.abs(found - exact) <= bound(stated, grid, exact, found, dtype)).all()
    return planes, found


def cache(shape: tuple[int, int, int], dtype: DType, seed: int = 0) -> Page:
    """A page like a cache's, and unlike: channels and tokens of any size, offsets, zeros."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * np.exp2(rng.uniform(-6, 4, (*shape[:2], 1)))
    values += np.exp2(rng.uniform(-9, 7, shape[2])) * rng.integers(-1, 2, shape[2])
    values[..., rng.integers(0, 8, shape[2]) == 0] *= 2.0**-20
    values[:, rng.integers(0, 8, shape[1]) == 0] = 0
    return page(values, dtype)
