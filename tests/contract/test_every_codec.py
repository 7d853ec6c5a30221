"""The contract of codecs, over every entry of CODECS, its parameters, dtypes and shapes.

A new lossy codec adds its stated error bound to BOUNDS, and combinations of its parameters that
meet in its code to COMBINED in tests/support/variants.py; everything else runs by itself.
"""

from __future__ import annotations

import itertools
import json
import re
import warnings
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.codecs import NonFinite, page_of
from kvq_cli.codecs.registry import CODECS, codec_from_json, codec_to_json
from kvq_cli.errors import CodecError
from kvq_cli.numerics import tiles
from kvq_cli.numerics.bits import INFINITY, MAGNITUDE, widen
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import allowed_sizes, cut, cuts_heads, cuts_tokens, pack, unpack
from kvq_cli.words import Role
from support.variants import POSITION, TABLES, at, basis_of, choices, suited, variants

FORMATS = Path(__file__).parents[2] / "formats"
DTYPES = list(DType)
CHANNELS = [1, 8, 33, 64, 80, 96, 128, 256]


def int8_bound(_codec, planes, _exact):
    """formats/codecs/int8.md, section "Error": half a code."""
    return 0.5001 * planes["scales"].astype(np.float64)


def fp8_bound(mantissa, least):
    """formats/codecs/fp8_*.md, section "Error": half a unit in the last place of the code."""

    def bound(_codec, planes, exact):
        half = np.abs(exact) * 2.0 ** -(mantissa + 1)
        return 1.001 * np.maximum(half, planes["scales"].astype(np.float64) * (least / 2))

    return bound


def grid_bound(codec, planes, exact):
    """formats/codecs/{int4,kivi}.md, section "Error": half a step, or the step without a code."""
    axis = 2 if codec.groups.axis == "token" else 1
    wide = np.repeat(planes["scales"].astype(np.float64), codec.group, axis=axis)
    scales = wide[:, : exact.shape[1], : exact.shape[2]]
    steps = exact / np.where(scales == 0, 1, scales)
    beyond = (steps > 2 ** (codec.width - 1) - 0.51) & (not codec.zeroed)
    return np.abs(scales) * np.where(beyond, 1.005, 0.501)


def row_bound(times):
    """formats/codecs/{fibquant,turboquant_*}.md, section "Error": in lengths of the row."""

    def bound(_codec, _planes, exact):
        return times * np.sqrt((exact**2).sum(axis=2, keepdims=True))

    return bound


def fib_quant_bound(codec, _planes, exact):
    """formats/codecs/fib_quant.md, section "Error": what no codeword reaches, and the norm's."""
    bound = np.empty(exact.shape)
    turned = exact.shape[1] - exact.shape[1] % codec.dim if codec.axis == "channel" else 0
    groups = turned // codec.dim
    whole = exact[:, :turned].reshape(len(exact), groups, codec.dim, codec.dim).swapaxes(2, 3)
    if turned:
        tall = fib_quant_lengths(codec, whole)[..., None].repeat(codec.dim, axis=3)
        bound[:, :turned] = tall.swapaxes(2, 3).reshape(len(exact), turned, -1)
    bound[:, turned:] = fib_quant_lengths(codec, exact[:, turned:])[..., None]
    return bound


def transform_bound(codec, _planes, exact):
    """formats/codecs/transform.md, section "Error": 15/16 of a step in each component.

    Components of the rows in float64, what these would give back, and how far the integers of
    the matrices, of dimensions, and a step's part of each component can lead from there.
    """
    heads, tokens, channels = exact.shape
    made = basis_of(channels)
    number = made.basis.number(Role.KEY, heads, 1)
    group, forward = made.basis.groups[number], made.forward[number]
    turn = made.basis.turns[group.turn] if group.turn is not None and codec.turned else None
    rows = turned(exact, turn, -1).swapaxes(0, 1).reshape(tokens, -1) - group.means
    whole = rows * 2.0**forward.inward
    matrix = forward.matrix * 2.0 ** -forward.outward.astype(float)
    restore = group.restore * 2.0 ** -group.exponents.astype(float)
    components = whole @ matrix
    step = codec.step / 65536
    off = 0.5 * np.abs(matrix).sum(axis=0) + step * 15 / 16
    off = off + 2.0**-20 * np.abs(whole) @ np.abs(matrix)
    lost = np.abs(rows - components @ restore) + off @ np.abs(restore)
    lost += 2.0**-20 * (np.abs(components) + off) @ np.abs(restore)
    lost += 2.0**-20 * (np.abs(rows) + np.abs(group.means))
    lost = lost.reshape(tokens, heads, channels).swapaxes(0, 1)
    if turn is not None:
        one, other = (lost[..., part] for part in parts_of(turn))
        one[...] = other[...] = one + other
    return lost


def turned(rows, turn, sign):
    """Rows at the positions of `at`, or back."""
    if turn is None:
        return rows
    cosines, sines = (each.astype(float) for each in turn.angles(POSITION, rows.shape[1]))
    found = rows.copy()
    (one, other), into = ([each[..., part] for part in parts_of(turn)] for each in (rows, found))
    into[0][...] = one * cosines - sign * other * sines
    into[1][...] = other * cosines + sign * one * sines
    return found


def parts_of(turn):
    """The first channels of all pairs, and the second ones."""
    width = 2 * turn.pairs
    if turn.interleaved:
        return slice(0, width, 2), slice(1, width, 2)
    return slice(0, turn.pairs), slice(turn.pairs, width)


def fib_quant_lengths(codec, vectors):
    rotation, words = (TABLES[table.digest].astype(float) for table in codec.tables())
    norms = np.sqrt((vectors**2).sum(axis=-1))
    units = vectors / np.where(norms > 0, norms, 1)[..., None]
    blocks = (units @ rotation.T).reshape(*norms.shape, codec.blocks, 1, codec.block)
    distances = ((blocks - words) ** 2).sum(axis=-1).min(axis=-1)
    off = np.sqrt(distances.sum(axis=-1))
    return np.where(norms > 0, norms * off * (1 + 2.0**-20) + (2.0**-10 * norms + 2.0**-24), 0)


# (codec, planes, exact float64 values less their means) to the largest error, besides what
# check_error adds for every codec.
BOUNDS = {
    "int8": int8_bound,
    "fp8_e4m3": fp8_bound(3, 2.0**-9),
    "fp8_e5m2": fp8_bound(2, 2.0**-16),
    "int4": grid_bound,
    "kivi": grid_bound,
    "fibquant": row_bound(2.5),
    "turboquant_mse": row_bound(2.5),
    "turboquant_prod": row_bound(4),
    "fib_quant": fib_quant_bound,
    "transform": transform_bound,
}
INSTANCES = [codec for kind in CODECS.values() for codec in variants(kind)]
FIRST = [next(variants(kind)) for kind in CODECS.values()]
every_codec = pytest.mark.parametrize("codec", INSTANCES, ids=repr)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def natural(spec, seed=0):
    """A page like a cache: channels of their own size, a constant channel, a small token."""
    rng = np.random.default_rng(seed)
    channel = np.exp2(rng.uniform(-3, 3, (spec.heads, 1, spec.channels)))
    values = rng.standard_normal(spec.shape) * channel
    values[:, 0] *= 0.05
    values[..., 0] += 60
    return Page(spec, page(values, spec.dtype).bits)


def page(values, dtype):
    spec = PageSpec(*values.shape, dtype)
    if dtype is DType.F16:
        return Page(spec, values.astype(np.float16).view(np.uint16))
    words = values.astype(np.float32).view(np.uint32)
    return Page(spec, words if dtype is DType.F32 else (words >> 16).astype(np.uint16))


def painted(spec, word):
    return Page(spec, np.full(spec.shape, word, spec.dtype.bits))


def numbers(bits, dtype):
    out = np.empty(bits.shape, np.float32)
    widen(bits, dtype, out)
    return out.astype(np.float64)


def encoded(codec, original):
    """Planes as a reader gets them: packed, unpacked, read-only."""
    layout = codec.layout(original.spec)
    planes = codec.encode(original, Scratch(TABLES))
    packed = [bytes(plane) for plane in pack(layout, planes)]
    return unpack(layout, [memoryview(plane) for plane in packed])


def decoded(codec, planes, spec, dtype=None):
    into = page_of(PageSpec(*spec.shape, dtype or spec.dtype))
    into.bits.view(np.uint8).fill(0xA5)
    codec.decode(planes, spec, into, Scratch(TABLES))
    return into.bits


def check_error(codec, original):
    """Exact, or within the stated bound, which leaves out a mean and the final roundings."""
    planes = encoded(codec, original)
    restored = decoded(codec, planes, original.spec)
    if codec.lossless:
        assert np.array_equal(restored, original.bits)
        return
    dtype = original.spec.dtype
    exact, found = numbers(original.bits, dtype), numbers(restored, dtype)
    digits = {DType.F16: 11, DType.BF16: 8, DType.F32: 24}[dtype]
    least = {DType.F16: -24, DType.BF16: -133, DType.F32: -149}[dtype]
    unit = np.exp2(np.maximum(np.frexp(found)[1] - digits, least).astype(float))
    means = means_of(planes, dtype)
    bound = BOUNDS[codec.name](codec, planes, exact - means) + unit / 2
    if means.any():
        bound += 2.0**-22 * (np.abs(exact) + np.abs(means))
    # The product is rounded before it is rounded to the dtype.
    assert (np.abs(found - exact) <= bound + 2.0**-150).all()


def means_of(planes, dtype):
    """What was taken off before coding, of every token or of those that say so."""
    if "means" not in planes:
        return np.zeros(1)
    return numbers(planes["means"], dtype) * planes.get("centred", np.ones(1, np.uint8))


def refusal_of(call, *arguments):
    """The CodecError of a call, or None; anything else it raises is a failure."""
    try:
        call(*arguments)
    except CodecError as refusal:
        return refusal
    return None


def encodes(codec, original):
    """Whether the page can be held; if not, it must be E501 and nothing about NaN."""
    refusal = refusal_of(codec.encode, original, Scratch(TABLES))
    if refusal is None:
        return True
    assert refusal.error_id == "E501"
    assert not isinstance(refusal, NonFinite)
    assert not codec.lossless
    return False


@every_codec
@every_dtype
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("heads", "tokens"), [(1, 1), (1, 40), (3, 24), (2, 23)])
def test_round_trip(codec, dtype, heads, tokens, channels):
    """Packed sizes are as the layout says, the page is not written to, the error is in bounds."""
    codec = suited(codec, channels)
    original = natural(at(codec, PageSpec(heads, tokens, channels, dtype)))
    original.bits.flags.writeable = False
    before = original.bits.copy()
    layout = codec.layout(original.spec)
    planes = codec.encode(original, Scratch(TABLES))
    packed = pack(layout, planes)
    assert all(
        len(each) in sizes for each, sizes in zip(packed, allowed_sizes(layout), strict=True)
    )
    assert np.array_equal(original.bits, before)
    check_error(codec, original)


@every_codec
@every_dtype
def test_layout_is_one_shape_for_one_spec(codec, dtype):
    """Names are unique, axes match shapes, sizes do not depend on the page's content."""
    for spec in (PageSpec(1, 1, 1, dtype), PageSpec(2, 40, 33, dtype)):
        layout = suited(codec, spec.channels).layout(spec)
        assert len({plane.name for plane in layout}) == len(layout)
        for plane in layout:
            assert len(plane.axes) == len(plane.shape)
            assert np.dtype(plane.dtype).str == plane.dtype
            for letter, length in zip(plane.axes, plane.shape, strict=True):
                assert letter != "H" or length == spec.heads
                assert letter != "T" or length == spec.tokens


@pytest.mark.parametrize("codec", FIRST, ids=repr)
@pytest.mark.parametrize("channels", [1, 64, 256, 257, 640, 641])
def test_check_spec_refuses_what_encode_refuses(codec, channels):
    """A spec that no page can have is known without a page."""
    codec = suited(codec, channels) if codec.placed else codec
    blank = page(np.zeros((1, 2, channels)), DType.F16)
    blank = Page(at(codec, blank.spec), blank.bits)
    refusals = []
    for call in (codec.check_spec, lambda _: codec.encode(blank, Scratch(TABLES))):
        try:
            call(blank.spec)
        except CodecError as refusal:
            refusals.append((refusal.error_id, str(refusal)))
    assert len(refusals) in (0, 2)
    assert len(set(refusals)) <= 1
    assert all(error_id == "E501" for error_id, _ in refusals)


@every_codec
def test_params_survive_json(codec):
    """A codec is what its JSON says, and its JSON states every parameter."""
    text = json.loads(json.dumps(codec_to_json(codec)))
    again = codec_from_json(text["name"], text["params"], "", revision=text["revision"])
    assert again == codec
    assert list(text["params"]) == sorted(field.name for field in fields(codec))
    assert hash(again) == hash(codec)


@every_codec
@every_dtype
@pytest.mark.parametrize("channels", [33, 64])
def test_a_slice_of_planes_is_a_slice_of_the_page(codec, dtype, channels):
    """Heads and tokens, by range, step or list, decode to the same bits as the whole page.

    Where tokens share what their group has, planes are cut along heads alone, or not at all.
    """
    codec, spec = suited(codec, channels), PageSpec(4, 40, channels, dtype)
    spec, cuts = at(codec, spec), []
    planes, layout = encoded(codec, natural(spec)), codec.layout(spec)
    whole = decoded(codec, planes, spec)
    if cuts_heads(layout):
        cuts += [(np.array([3, 0]), slice(0, 40)), (slice(1, 2), slice(0, 40))]
    if cuts_tokens(layout):
        cuts += [
            (slice(1, 3), slice(5, 6)),
            (slice(0, 4, 2), slice(3, 37, 5)),
            (slice(0, 4), np.array([39, 0, 7])),
        ]
    for heads, tokens in cuts:
        expected = whole[heads][:, tokens]
        piece = cut(layout, planes, heads, tokens)
        part = PageSpec(*expected.shape, dtype)
        assert np.array_equal(decoded(codec, piece, part), expected)


@every_codec
@every_dtype
def test_bytes_do_not_depend_on_memory(codec, dtype):
    """Strided and Fortran-ordered pages, and pages inside a larger array, give the same planes."""
    codec = suited(codec, 33)
    original = natural(at(codec, PageSpec(3, 30, 33, dtype)))
    expected = encoded(codec, original)
    larger = np.zeros((3, 60, 33), dtype.bits)
    larger[:, ::2] = original.bits
    for bits in (np.asfortranarray(original.bits), larger[:, ::2]):
        found = encoded(codec, Page(original.spec, bits))
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


@every_codec
@every_dtype
@pytest.mark.parametrize("size", [1, 40, 33 * 7, 33 * 60])
def test_bytes_do_not_depend_on_tiles(codec, dtype, size, monkeypatch):
    """However a page is cut for the cache, planes and restored bits are the same."""
    codec = suited(codec, 33)
    original = natural(at(codec, PageSpec(3, 30, 33, dtype)))
    planes = encoded(codec, original)
    restored = decoded(codec, planes, original.spec)
    monkeypatch.setitem(tiles.tiles.__kwdefaults__, "size", size)
    found = encoded(codec, original)
    assert all(np.array_equal(found[name], planes[name]) for name in planes)
    assert np.array_equal(decoded(codec, planes, original.spec), restored)


@every_codec
@every_dtype
def test_scratch_holds_no_memory(codec, dtype):
    """A scratch that has seen other pages gives the same planes as a fresh one."""
    scratch = Scratch(TABLES)
    for spec in (PageSpec(2, 50, 64, dtype), PageSpec(1, 3, 8, dtype), PageSpec(2, 50, 33, dtype)):
        codec = suited(codec, spec.channels)
        original = natural(spec := at(codec, spec))
        found = {name: plane.copy() for name, plane in codec.encode(original, scratch).items()}
        expected = encoded(codec, original)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        into = page_of(spec)
        codec.decode(expected, spec, into, scratch)
        assert np.array_equal(into.bits, decoded(codec, expected, spec))


@every_codec
@every_dtype
def test_other_dtypes_are_near(codec, dtype):
    """Decoding to another dtype gives the same numbers, rounded to it."""
    codec = suited(codec, 33)
    original = natural(at(codec, PageSpec(2, 30, 33, dtype)))
    planes = encoded(codec, original)
    wide = numbers(decoded(codec, planes, original.spec, DType.F32), DType.F32)
    for target in DTYPES:
        found = numbers(decoded(codec, planes, original.spec, target), target)
        unit = {DType.F16: 2.0**-11, DType.BF16: 2.0**-8, DType.F32: 0}[target]
        assert (np.abs(found - wide) <= unit * np.abs(wide) + 2.0**-25).all()


@every_codec
@every_dtype
def test_corners_are_exact_bounded_or_refused(codec, dtype):
    """Zeros, subnormals and the largest numbers: in bounds, or E501."""
    codec = suited(codec, 33)
    spec = at(codec, PageSpec(2, 30, 33, dtype))
    sign = 1 << (8 * dtype.size - 1)
    top = INFINITY[dtype] - 1
    mantissa = {DType.F16: 10, DType.BF16: 7, DType.F32: 23}[dtype]
    rng = np.random.default_rng(5)
    subnormal = rng.integers(0, 1 << mantissa, spec.shape).astype(dtype.bits)
    signs = rng.integers(0, 2, spec.shape).astype(dtype.bits) * np.dtype(dtype.bits).type(sign)
    pages = [painted(spec, word) for word in (0, sign, 1, sign | 1, top, sign | top)]
    pages += [Page(spec, subnormal | signs), Page(spec, signs | np.dtype(dtype.bits).type(top))]
    mixed = natural(spec).bits.copy()
    mixed[0, 1], mixed[1, :, 3], mixed[0, 2, 2], mixed[1, 5] = 0, 1, top, 1
    pages.append(Page(spec, mixed))
    # Groups without a range, along tokens and along channels, subnormal ones in wide dtypes:
    # a little more than 1792 times a subnormal scale, where grids end.
    for along in (np.arange(30)[:, None], np.arange(33)):
        flat = np.broadcast_to((along * 28672 + 100) % INFINITY[dtype], spec.shape)
        pages.append(Page(spec, flat.astype(dtype.bits)))
    for original in pages:
        if encodes(codec, original):
            check_error(codec, original)


@every_codec
@every_dtype
@pytest.mark.parametrize("extra", [0, 1, -1])
def test_non_finite_is_exact_or_named(codec, dtype, extra):
    """Infinity and NaN come back bit for bit, or the first one is named."""
    codec = suited(codec, 33)
    original = natural(at(codec, PageSpec(3, 30, 33, dtype)))
    quietest = MAGNITUDE[dtype] if extra < 0 else INFINITY[dtype] + extra
    original.bits[1, 7, 5] = original.bits[1, 8, 0] = quietest
    if codec.lossless:
        check_error(codec, original)
        return
    with pytest.raises(NonFinite) as refusal:
        codec.encode(original, Scratch(TABLES))
    assert refusal.value.error_id == "E501"
    assert refusal.value.first == (1, 7, 5)
    assert refusal.value.heads.tolist() == [False, True, False]


@every_codec
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_hostile_planes_decode_or_are_refused(codec, data):
    """Random planes of sizes that are allowed give a page or E502, without a warning."""
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = [data.draw(st.sampled_from(sizes)) for sizes in ([1, 2], [1, 3, 30], [1, 3, 8, 33])]
    codec = suited(codec, shape[2])
    spec = at(codec, PageSpec(*shape, dtype))
    seed = data.draw(st.integers(0, 1 << 32))
    rng = np.random.default_rng(seed)
    fill = data.draw(st.sampled_from([None, 0, 0x7F, 0x80, 0xFF]))
    layout = codec.layout(spec)
    sizes = [data.draw(st.sampled_from(allowed)) for allowed in allowed_sizes(layout)]
    packed = [rng.bytes(size) if fill is None else bytes([fill]) * size for size in sizes]
    planes = unpack(layout, [memoryview(plane) for plane in packed])
    target = data.draw(st.sampled_from(DTYPES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refusal = refusal_of(decoded, codec, planes, spec, target)
    if refusal is not None:
        assert refusal.error_id in ({"E502"} if target is dtype else {"E501", "E502"})


@every_codec
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_page_is_exact_bounded_or_refused(codec, data):
    """Arbitrary bits, most of them far from any cache, keep the promise of the codec."""
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = [data.draw(st.integers(1, most)) for most in (3, 30, 20)]
    codec = suited(codec, shape[2])
    spec = at(codec, PageSpec(*shape, dtype))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    bits = rng.integers(0, 1 << (8 * dtype.size), spec.shape).astype(dtype.bits)
    if not codec.lossless:
        finite = (bits & MAGNITUDE[dtype]) < INFINITY[dtype]
        bits = np.where(finite, bits, 0).astype(dtype.bits)
    original = Page(spec, bits)
    if encodes(codec, original):
        check_error(codec, original)


@pytest.mark.parametrize("key", CODECS, ids=str)
def test_every_codec_is_complete(key):
    """A codec has a page with its name, revision, parameters and planes, vectors, and a bound."""
    name, revision = key
    kind = CODECS[key]
    codec = next(variants(kind))
    text = (FORMATS / "codecs" / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.search(rf"^Revision: {revision}$", text, re.MULTILINE)
    for field in fields(kind):
        default = "required"
        if field.default is not MISSING:
            default = f"`{json.dumps(field.default)}`"
        row = re.search(rf"^\| `{field.name}` \|.*$", text, re.MULTILINE)
        assert row, f"the page lists no parameter {field.name}"
        assert default in row.group()
        for value in choices(get_type_hints(kind)[field.name]):
            assert f"`{json.dumps(value)}`" in row.group()
    mine = [one for one in INSTANCES if type(one) is kind]
    for one, dtype in itertools.product(mine, DTYPES):
        for plane in one.layout(PageSpec(2, 40, 64, dtype)):
            assert f"| `{plane.name}` |" in text, f"the page lists no plane {plane.name}"
    assert (FORMATS / "vectors" / "codecs" / f"{name}.json").is_file()
    assert codec.lossless or name in BOUNDS
    assert isinstance(codec.lossless, bool)
