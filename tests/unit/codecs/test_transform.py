"""transform: exact by either float type, within its steps, the same however it is cut."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
from reference import coefficients

from kvq_cli.codecs import Larger, page_of, transform
from kvq_cli.codecs.rotary import turn_rows
from kvq_cli.codecs.transform import Transform
from kvq_cli.errors import CodecError
from kvq_cli.numerics.models import models
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.words import Place, Role
from support.bases import calibration, group, of_layers, turn

UNIT = 65536
PLAIN = of_layers(2, 2, 8, each=2)
TURNED = of_layers(2, 2, 8, each=2, pairs=4)
PLACE = Place(Role.KEY, 0, 2, 3)


def page_of_numbers(tokens, size=1.0, dtype=DType.F32, place=PLACE, seed=0):
    spec = PageSpec(4, tokens, 8, dtype, place)
    values = np.random.default_rng(seed).standard_normal(spec.shape).astype(np.float32) * size
    values = values.astype(np.float32)
    if dtype is DType.F16:
        return Page(spec, values.astype(np.float16).view(np.uint16))
    words = values.view(np.uint32)
    return Page(spec, words if dtype is DType.F32 else (words >> 16).astype(np.uint16))


def encoded(made, step, page, **params):
    scratch = Scratch(made.tables())
    return {
        name: plane.copy()
        for name, plane in made.codec(step, **params).encode(page, scratch).items()
    }


def decoded(made, step, planes, spec, **params):
    into = page_of(spec)
    made.codec(step, **params).decode(planes, spec, into, Scratch(made.tables()))
    return into.bits


def components(made, step, page):
    """u, by Python's integers, one component and token at a time."""
    (found,) = [each for each in range(len(made.basis.groups)) if made.basis.groups[each].place == (
        Role.KEY, 0, 2)]  # fmt: skip
    held, forward = made.basis.groups[found], made.forward[found]
    rows = page.bits.view(np.float32).swapaxes(0, 1).reshape(page.spec.tokens, -1)
    scale = np.ldexp(np.float32(1), forward.inward.astype(np.int32))
    whole = np.rint((rows - held.means) * scale).astype(np.int64).tolist()
    matrix = forward.matrix.T.tolist()
    factors = [2.0 ** -int(out) * (UNIT / step) for out in forward.outward]
    return [
        [float(sum(k * f for k, f in zip(row, column, strict=True))) * factor for row in whole]
        for column, factor in zip(matrix, factors, strict=True)
    ]


@pytest.mark.parametrize(("step", "size"), [(UNIT, 2.0), (UNIT // 5, 3.0), (64, 20.0)])
def test_the_integers_of_an_encoder(step, size):
    """They are those that Python's integers give; none is restored further off than 15/16."""
    page = page_of_numbers(30, size)
    planes = encoded(PLAIN, step, page)
    q = coefficients.decode(planes["states"], planes["words"], planes["classes"], 30)
    expected = components(PLAIN, step, page)
    for number, line, found in zip(planes["classes"], expected, q, strict=False):
        for u, each in zip(line, found, strict=True):
            assert each == (round(u) if abs(u) >= 0.56 else 0)
            off = abs(coefficients.restored(int(number), each) / 16 - u)
            assert off <= (15 / 16 if each else 0.56)
    for line in expected[len(q) :]:
        assert max(map(abs, line)) < 0.56


def test_restored_values_lie_in_the_middle():
    """No class moves the ends of a cell further than 15/16 of a step from what is restored."""
    for model in models().classes[1:]:
        shifted = model.shift > 0
        for at, shortfall in enumerate(model.shortfalls, 1):
            value = at - shortfall / 16
            low = 0.56 if at == 1 and not shifted else at - 0.5
            assert max(value - low, at + 0.5 - value) <= 15 / 16


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("made", [PLAIN, TURNED], ids=["plain", "turned"])
def test_both_float_types(dtype, made, monkeypatch):
    """Where float32 holds all sums it gives the bits of float64; else it is not used."""
    page = page_of_numbers(40, 3.0, dtype)
    kinds = []
    choose = transform.exact_kind

    def spied(*arguments):
        kinds.append(choose(*arguments))
        return kinds[-1]

    for step in (UNIT, UNIT // 4, UNIT // 64, 200):
        planes = encoded(made, step, page)
        monkeypatch.setattr(transform, "exact_kind", spied)
        found = decoded(made, step, planes, page.spec)
        monkeypatch.setattr(transform, "exact_kind", lambda *_: np.float64)
        assert np.array_equal(found, decoded(made, step, planes, page.spec))
        monkeypatch.undo()
    assert kinds[0] is np.float32
    assert kinds[-1] is np.float64


def test_the_bound_of_float32(monkeypatch):
    """Coefficients along a column, as long as float32 is given: still the bits of float64."""
    held = PLAIN.basis.groups[0]
    column = held.restore[:, 5].astype(float)
    length = np.sqrt((held.restore.astype(float) ** 2).sum(axis=0).max())
    chosen = []
    for reach in (0.5, 0.97, 0.994, 1.0, 1.5):
        v = np.rint(column / np.linalg.norm(column) * (2.0**24 / length * reach))
        values = np.ascontiguousarray(v[:, None], np.float32)
        kind = transform.exact_kind(values, held, Scratch())
        chosen.append(kind)
        exact = (v.astype(np.int64)[:, None] * held.restore.astype(np.int64)).sum(axis=0)
        found = values.astype(kind).T @ held.restore.astype(kind)
        assert np.array_equal(found[0].astype(np.int64), exact)
    assert chosen == [np.float32, np.float32, np.float32, np.float64, np.float64]


@pytest.mark.parametrize("interleaved", [False, True])
def test_turned_back_and_turned(interleaved):
    """Rows come back to within float32; channels that do not turn are not touched."""
    made = turn(3, interleaved=interleaved, coarse=64)
    rows = page_of_numbers(300).bits.view(np.float32).copy()
    before = rows.copy()
    turn_rows(rows, made, 100, Scratch(), back=True)
    assert np.array_equal(rows[..., 6:], before[..., 6:])
    assert np.abs(rows[..., :6] - before[..., :6]).max() > 1
    assert (
        np.abs(np.hypot(*_pair(rows, interleaved)) - np.hypot(*_pair(before, interleaved))).max()
        < 1e-5
    )
    turn_rows(rows, made, 100, Scratch(), back=False)
    assert np.abs(rows - before).max() < 2e-6


def _pair(rows, interleaved):
    return (rows[..., 0], rows[..., 1] if interleaved else rows[..., 3])


@pytest.mark.parametrize("tile", [1, 7, 64])
def test_tiles_change_nothing(tile, monkeypatch):
    """However many tokens are multiplied at a time, planes and rows are the same."""
    page = page_of_numbers(50, 3.0, DType.F16)
    planes = encoded(TURNED, UNIT // 8, page)
    rows = decoded(TURNED, UNIT // 8, planes, page.spec)
    monkeypatch.setattr(transform, "TILE", tile)
    again = encoded(TURNED, UNIT // 8, page)
    assert all(np.array_equal(planes[name], again[name]) for name in planes)
    assert np.array_equal(rows, decoded(TURNED, UNIT // 8, planes, page.spec))


def test_positions_count():
    """A page elsewhere in the text is another page; without positions it is the same one."""
    page = page_of_numbers(20)
    spec = replace(page.spec, place=replace(PLACE, position=40))
    moved = Page(spec, page.bits)
    one, other = (encoded(TURNED, UNIT // 8, each)["words"] for each in (page, moved))
    assert not np.array_equal(one, other)
    one, other = (encoded(TURNED, UNIT // 8, each, turned=False) for each in (page, moved))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_what_is_not_bound():
    """Encoders refuse it as what cannot be held, decoders as what nobody wrote."""
    page = page_of_numbers(5)
    planes, tables = encoded(PLAIN, UNIT, page), PLAIN.tables()
    nowhere = replace(page.spec, place=None)
    for codec, spec in (
        (Transform(), page.spec),
        (PLAIN.codec(None), page.spec),
        (PLAIN.codec(UNIT), nowhere),
        (PLAIN.codec(UNIT), replace(page.spec, place=replace(PLACE, layers=1))),
        (PLAIN.codec(UNIT), replace(page.spec, place=replace(PLACE, layer=1))),
        (PLAIN.codec(UNIT), replace(page.spec, place=replace(PLACE, role=Role.VALUE, layer=7))),
    ):
        with pytest.raises(CodecError) as refusal:
            codec.encode(Page(spec, page.bits), Scratch(tables))
        assert refusal.value.error_id == "E501"
        with pytest.raises(CodecError) as refusal:
            codec.decode(planes, spec, page_of(spec), Scratch(tables))
        assert refusal.value.error_id == "E502"


def test_a_page_that_would_grow():
    """It has a refusal of its own."""
    with pytest.raises(Larger):
        encoded(PLAIN, 16, page_of_numbers(20, 20.0, DType.F16))


@pytest.mark.parametrize("size", [1e30, 3e38])
def test_the_largest_numbers(size):
    """Turned beyond float32 or not, they are refused without a warning."""
    page = page_of_numbers(4)
    page.bits.view(np.float32)[:] = size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CodecError, match="far"):
            encoded(TURNED, UNIT, page)


def test_a_turn_that_is_none():
    """Tables whose cosines are 2 give a difference of two infinities: 0, and no warning."""
    wild = turn(1, fine=1, coarse=1)
    for table in (wild.fine, wild.coarse):
        table[:] = 2**31 - 1
    made = group(Role.KEY, 0, 1, 1, 2, turn=0)
    made.group.means[:] = 3e38
    built = calibration([made], [wild])
    spec = PageSpec(1, 1, 2, DType.F32, Place(Role.KEY, 0, 1, 0))
    planes = {
        "classes": np.zeros(0, np.uint8),
        "states": np.full(1, 1 << 16, np.uint32),
        "words": np.zeros(0, np.uint16),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = decoded(built, UNIT, planes, spec).view(np.float32)
    assert np.isfinite(rows).all()
    assert rows[0, 0, 1] == np.finfo(np.float32).max


def test_many_calibrations_and_threads():
    """What is kept of tables is kept by their digest, whoever asks at once."""
    many = [of_layers(2, 2, 8, each=2, rank=rank) for rank in range(20, 30)]
    page = page_of_numbers(12, 3.0)
    expected = [encoded(made, UNIT // 8, page) for made in many]
    wrong = []

    def ask(first):
        for at in range(40):
            number = (first + at * 3) % len(many)
            planes = encoded(many[number], UNIT // 8, page)
            if not np.array_equal(planes["words"], expected[number]["words"]):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(each,)) for each in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
