"""int4 and kivi: what holds of every grid, with zeros and without, along either axis."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.codecs import NonFinite
from kvq_cli.codecs.int4 import Int4
from kvq_cli.codecs.kivi import Kivi
from kvq_cli.errors import CodecError
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from support import grids
from support.grids import check, copies, grid_of

INT4 = [Int4(zero_point=zero_point) for zero_point in (False, True)]
KIVI = [Kivi(axis=axis, bits=bits) for axis in ("token", "channel") for bits in (2, 3, 4, 8)]
CENTRED = [replace(codec, center=True) for codec in INT4]
EVERY_INT4 = [
    replace(codec, group=group, center=center, scale=scale)
    for codec, group, center, scale in itertools.product(
        INT4, (32, 64, 128), (False, True), ("f16", "f32")
    )
]
MEANS = [("means", 0x7C00), ("means", 0xFE00), ("centred", 2), ("centred", 255)]
ZEROS = [("zeros", 28688), ("zeros", -28688), ("zeros", -32768)]
SCALES = [("scales", value) for value in (np.inf, -np.inf, np.nan, -0.0)]
IMPOSSIBLE = [
    *((codec, *each) for codec in CENTRED for each in (*MEANS, *SCALES)),
    *((codec, *each) for codec in CENTRED for each in (("scales", 20000.0), ("codes", 0x10))),
    *((CENTRED[1], *each) for each in ZEROS),
    *((codec, *each) for codec in KIVI[::4] for each in (*ZEROS, *SCALES)),
    *((codec, *each) for codec in KIVI[::4] for each in (("scales", -1.0), ("codes", 0x43))),
]


@pytest.mark.parametrize("codec", INT4 + KIVI, ids=repr)
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_any_group_is_within_its_step(codec, data):
    """In exact rational arithmetic, whatever the 16 bits are."""
    group = data.draw(st.lists(st.integers(0, 0x7BFF), min_size=1, max_size=8))
    signs = data.draw(st.lists(st.booleans(), min_size=len(group), max_size=len(group)))
    words = [word | sign << 15 for word, sign in zip(group, signs, strict=True)]
    grid = grid_of(codec)
    shape = (1, 1, len(words)) if grid.axis == "token" else (1, len(words), 1)
    original = Page(PageSpec(*shape, DType.F16), np.array(words, np.uint16).reshape(shape))
    scale = data.draw(st.sampled_from(["f16", "f32"]))
    planes, found = check(replace(codec, scale=scale), original)
    step = Fraction(float(planes["scales"][0, 0, 0]))
    exact = grids.numbers(original.bits, DType.F16).reshape(-1).tolist()
    for number, restored in zip(exact, found.reshape(-1).tolist(), strict=True):
        unit = Fraction(2) ** max(math.frexp(restored)[1] - 11, -24)
        # Without zeros the opposite of the extreme has no code.
        beyond = not grid.zeroed and step and Fraction(number) / step > Fraction("7.49")
        most = Fraction("1.005" if beyond else "0.501")
        assert abs(Fraction(number) - Fraction(restored)) <= most * abs(step) + unit / 2


@pytest.mark.parametrize("codec", INT4 + KIVI, ids=repr)
def test_half_scales_have_an_end(codec):
    """A group that needs a scale of 65520 is refused, and not as non-finite."""
    grid = grid_of(codec)
    top = 65520.0 * ((2**grid.bits - 1) / 2 if grid.zeroed else 2 ** (grid.bits - 1))
    below = float(np.nextafter(np.float32(top), np.float32(0)))
    check(codec, grids.page([[below, -below], [-below, below]], DType.F32))
    original = grids.page([[top, -top], [-top, top]], DType.F32)
    with pytest.raises(CodecError) as refusal:
        codec.encode(original, Scratch())
    assert refusal.value.error_id == "E501"
    assert not isinstance(refusal.value, NonFinite)


@pytest.mark.parametrize("codec", EVERY_INT4 + KIVI, ids=repr)
@pytest.mark.parametrize("word", [0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFFFF])
def test_non_finite_is_named(codec, word):
    """The refusal carries the first offender and the heads that hold any."""
    bits = np.zeros((3, 40, 5), np.uint16)
    bits[1, 35, 3] = word
    bits[1, 36, 0] = bits[2, 0, 0] = 0xFC00
    with pytest.raises(NonFinite) as refusal:
        codec.encode(Page(PageSpec(3, 40, 5, DType.F16), bits), Scratch())
    assert refusal.value.error_id == "E501"
    assert refusal.value.first == (1, 35, 3)
    assert refusal.value.heads.tolist() == [False, True, True]


@pytest.mark.parametrize("target", list(DType))
@pytest.mark.parametrize("source", list(DType))
@pytest.mark.parametrize("codec", INT4 + CENTRED + KIVI[1::4], ids=repr)
def test_other_targets_are_rounded_once(codec, source, target):
    """Decoding into any dtype is a product, and a sum, rounded once to that dtype."""
    codec = replace(codec, group=32)
    original = grids.cache((2, 40, 33), source)
    planes = codec.encode(original, Scratch())
    found = grids.decoded(codec, planes, original.spec, target)
    stated = grids.encode(original, grid_of(codec))
    assert np.array_equal(found, grids.restore(stated, grid_of(codec), source, target))


@pytest.mark.parametrize(("codec", "plane", "value"), IMPOSSIBLE, ids=repr)
def test_impossible_planes_are_refused(codec, plane, value):
    """Means, scales, zeros and padding that no encoder writes are damage."""
    original = grids.page([[1, 2, 3]], DType.F16)
    for place in (0, -1) if plane != "codes" else (-1,):
        planes = copies(codec, original)
        planes[plane][0, 0, place] = value
        for refuse in (
            lambda planes=planes: codec.check(planes, original.spec),
            lambda planes=planes: grids.decoded(codec, planes, original.spec),
        ):
            with pytest.raises(CodecError) as refusal:
                refuse()
            assert refusal.value.error_id == "E502"


@pytest.mark.parametrize(
    "codecs",
    [(Int4(), Int4(center=True)), (Kivi(axis="token"), Kivi(axis="channel"))],
    ids=["int4", "kivi"],
)
def test_offsets_want_means_or_channels(codecs):
    """On channels with large offsets, groups less their means, or of tokens, err far less."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((256, 128)) + np.exp2(rng.uniform(-3, 6, 128))
    original = grids.page(values, DType.F16)
    errors = []
    for codec in codecs:
        found = grids.decoded(codec, codec.encode(original, Scratch()), original.spec)
        errors.append(np.square(grids.numbers(found, DType.F16) - values).sum())
    assert errors[1] * 4 < errors[0]
