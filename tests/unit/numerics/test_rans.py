"""rans: coefficients come back, as the reference decodes them; other bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import coefficients as reference
from reference.refused import Refused

from kvq_cli.errors import CodecError
from kvq_cli.numerics.choosing import COST, ESCAPE_BITS, NEAR, _costs, _held, choose
from kvq_cli.numerics.lanes import MAX_LANES
from kvq_cli.numerics.models import LIMIT, models
from kvq_cli.numerics.rans import decode, encode
from kvq_cli.numerics.scratch import Scratch

LAST = len(models().classes) - 1
TOKENS = (1, 2, 7, 256, 511, 512, 513, 1024, 1100)
SCRATCH = Scratch()


def lanes_of(q: np.ndarray) -> int:
    """As many as there may be."""
    return min(q.shape[1], MAX_LANES)


def decoded(states, words, classes, tokens, dtype=np.int32):
    out = np.full((len(classes), tokens), 77, dtype)
    decode(states, words, classes, out, SCRATCH)
    return out


def drawn(seed, components, tokens, scale):
    """Heavy tails about a scale: escapes of narrow classes are among them."""
    rng = np.random.default_rng(seed)
    found = rng.standard_t(3, (components, tokens)) * scale
    return np.rint(found).clip(1 - LIMIT, LIMIT - 1).astype(np.int32)


def restored_of(classes, q):
    return [
        [reference.restored(number, value) for value in line]
        for number, line in zip(classes.tolist(), q.tolist(), strict=True)
    ]


def check(q, classes):
    """All ways back agree."""
    states, words = encode(q, classes, lanes_of(q), SCRATCH)
    assert states.dtype == "<u4"
    assert words.dtype == "<u2"
    assert len(states) == lanes_of(q)
    assert np.array_equal(decoded(states, words, classes, q.shape[1]), q)
    assert reference.decode(states, words, classes, q.shape[1]) == q.tolist()
    restored = decoded(states, words, classes, q.shape[1], np.float32)
    assert restored.tolist() == restored_of(classes, q)
    return states, words


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("scale", [0.2, 2.0, 30.0, 5e4])
def test_round_trip(tokens, scale):
    """By chosen classes: one row, several, a last one with fewer tokens."""
    q = drawn(tokens, 5, tokens, scale)
    q[1] = 0
    check(q, choose(q, SCRATCH))


@pytest.mark.parametrize("number", range(1, LAST + 1))
def test_every_class(number):
    """In and out of the head, with values of every symbol, escapes, and both extremes."""
    largest = largest_of(number)
    line = np.arange(-largest - 3, largest + 4)
    line = np.concatenate((line << models().classes[number].shift, [1 - LIMIT, LIMIT - 1]))
    q = np.tile(np.resize(line, 530), (6, 1)).astype(np.int32)
    states, words = encode(q, np.full(6, number, np.uint8), lanes_of(q), SCRATCH)
    assert np.array_equal(decoded(states, words, np.full(6, number, np.uint8), 530), q)
    some = np.ascontiguousarray(q[:, : len(line)])
    check(some, np.full(6, number, np.uint8))


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.sampled_from(TOKENS[:-2]),
    classes=st.lists(st.integers(0, LAST), max_size=6),
    seed=st.integers(0, 99),
    scale=st.sampled_from([0.1, 1.0, 10.0, 1e3, 1e6]),
)
def test_any_class_codes_any_coefficients(tokens, classes, seed, scale):
    """Whatever classes say, nothing is lost."""
    q = drawn(seed, len(classes), tokens, scale)
    numbers = np.array(classes, np.uint8)
    q[numbers == 0] = 0
    check(q, numbers)


def test_a_component_that_is_absent_takes_nothing():
    """All of them: states stay as they began."""
    states, words = check(np.zeros((9, 300), np.int32), np.zeros(9, np.uint8))
    assert set(states.tolist()) == {1 << 16}
    assert not len(words)


def test_the_head_is_free():
    """Symbols that states begin with take no words."""
    q = drawn(3, 2, 400, 1.0).clip(-2, 2)
    number = next(n for n in range(1, LAST) if len(models().frequencies[n - 1]) == 6)
    assert not len(check(q, np.full(2, number, np.uint8))[1])


@pytest.mark.parametrize("value", [LIMIT, -LIMIT, 2**31 - 1, -(2**31)])
def test_too_large_a_coefficient_is_refused(value):
    """One that an escape could hold, but no decoder takes."""
    q = np.full((1, 3), value, np.int32)
    with pytest.raises(CodecError) as refused:
        encode(q, np.array([5], np.uint8), lanes_of(q), SCRATCH)
    assert refused.value.error_id == "E501"


def test_class_0_does_not_swallow_coefficients():
    """It is a mistake of the caller's."""
    with pytest.raises(ValueError, match="class 0"):
        encode(np.ones((1, 3), np.int32), np.zeros(1, np.uint8), 3, SCRATCH)


def sample(seed=0, tokens=40):
    """A page with a head, a shift and escapes, and what it becomes."""
    q = np.concatenate([drawn(seed + n, 1, tokens, s) for n, s in enumerate((300, 9, 1, 0.3))])
    q[2, 5], q[0, 7], q[3, 9] = 5000, 900_000, -70
    classes = choose(q, SCRATCH)
    classes[2] = 30
    return q, classes, *encode(q, classes, lanes_of(q), SCRATCH)


def escape(value):
    return np.array([value], "<i4").view("<u2")


def largest_of(number):
    return len(models().frequencies[models().classes[number].table]) // 2 - 1


FORGED = {
    "a lane is missing": lambda s, w, c: (s[:-1], w, c),
    "a lane too many": lambda s, w, c: (np.append(s, s[:1]), w, c),
    "a state below 2**16": lambda s, w, c: (np.append(s[:-1], np.uint32(65535)), w, c),
    "a state of zero": lambda s, w, c: (s * np.uint32(0), w, c),
    "no words": lambda s, w, c: (s, w[:0], c),
    "a word is missing": lambda s, w, c: (s, w[:-1], c),
    "an escape is missing": lambda s, w, c: (s, w[:-2], c),
    "a word too many": lambda s, w, c: (s, np.append(w, w[:1]), c),
    "an escape too many": lambda s, w, c: (s, np.append(w, w[-2:]), c),
    "an escape of the alphabet": lambda s, w, c: (s, np.append(w[:-2], escape(2)), c),
    "an escape of A": lambda s, w, c: (s, np.append(w[:-2], escape(largest_of(c[-1]))), c),
    "an escape of -A": lambda s, w, c: (s, np.append(w[:-2], escape(-largest_of(c[-1]))), c),
    "an escape of zero": lambda s, w, c: (s, np.append(w[:-2], escape(0)), c),
    "an escape of 2**20": lambda s, w, c: (s, np.append(w[:-2], escape(1 << 20)), c),
    "an escape of -2**31": lambda s, w, c: (s, np.append(w[:-2], escape(-(1 << 31))), c),
    "no such class": lambda s, w, c: (s, w, np.append(c[:-1], np.uint8(LAST + 1))),
    "class 255": lambda s, w, c: (s, w, np.append(c[:-1], np.uint8(255))),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_no_encoder_writes_is_refused(name):
    """Each check of the spec, by kvq and by the reference."""
    _, classes, states, words = sample()
    states, words, classes = FORGED[name](states, words, classes)
    with pytest.raises(CodecError) as refused:
        decoded(states, words, classes, 40)
    assert refused.value.error_id == "E502"
    with pytest.raises(Refused):
        reference.decode(states, words, classes, 40)


def test_a_rest_of_the_head_is_refused():
    """A state that ends above what digits can give."""
    q = np.zeros((1, 3), np.int32)
    states, words = encode(q, np.array([1], np.uint8), lanes_of(q), SCRATCH)
    assert not len(words)
    states[1] += 6  # the table of class 1 has six symbols
    with pytest.raises(CodecError, match="do not end"):
        decoded(states, words, np.array([1], np.uint8), 3)
    with pytest.raises(Refused):
        reference.decode(states, words, [1], 3)


@pytest.mark.parametrize("lanes", [0, 6, 512])
def test_pages_of_too_many_lanes_or_none_are_refused(lanes):
    """Even where nothing but their number is wrong."""
    states = np.full(lanes, 1 << 16, np.uint32)
    with pytest.raises(CodecError, match="states"):
        decoded(states, np.zeros(0, np.uint16), np.zeros(3, np.uint8), 5)


def test_a_state_that_gave_a_word_too_early_is_refused():
    """Below 2**16 to begin with, it would come to the same: no page is written in two ways."""
    classes, q = np.full(7, 1, np.uint8), np.zeros((7, 1), np.int32)
    states, words = encode(q, classes, lanes_of(q), SCRATCH)
    assert not len(words)
    table = models().frequencies[0].astype(int)
    start, frequency = int(table[:2].sum()), int(table[2])
    x = int(states[0]) // 4096 * frequency + int(states[0]) % 4096 - start  # before the last step
    assert x >= 1 << 16
    early = np.array([start + (x >> 16)], np.uint32)
    with pytest.raises(CodecError, match="states"):
        decoded(early, np.array([x & 0xFFFF], np.uint16), classes, 1)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 5), at=st.integers(0, 10**6), flip=st.integers(1, 65535))
def test_other_bytes_are_refused_or_are_other_coefficients(seed, at, flip):
    """What is decoded at all is what the encoder makes of it: no two ways to write a page."""
    q, classes, states, words = sample(seed)
    parts = [states.view("<u2").copy(), words.copy()]
    part = parts[at % 2]
    part[at // 2 % len(part)] ^= flip
    states, words = parts[0].view("<u4"), parts[1]
    try:
        found = decoded(states, words, classes, q.shape[1])
    except CodecError as refused:
        assert refused.error_id == "E502"  # noqa: PT017 - only some changes are refused
        with pytest.raises(Refused):
            reference.decode(states, words, classes, q.shape[1])
        return
    assert not np.array_equal(found, q)
    again = encode(found, classes, lanes_of(found), SCRATCH)
    assert np.array_equal(again[0], states)
    assert np.array_equal(again[1], words)


@pytest.mark.parametrize("number", [3, 20, 35, 50, 76, 90, 103, 105, 212])
def test_sizes_are_close_to_the_entropy(number):
    """Of values drawn from the class itself: 1 % above it, beside what states take."""
    model, tokens, components = models().classes[number], 2048, 24
    frequencies = models().frequencies[model.table].astype(float)
    largest = len(frequencies) // 2 - 1
    chances = frequencies[:-1] / frequencies[:-1].sum()
    rng = np.random.default_rng(number)
    q = rng.choice(np.arange(-largest, largest + 1), (components, tokens), p=chances)
    low = rng.integers(0, 1 << model.shift, q.shape) - (1 << model.shift >> 1)
    q = ((q << model.shift) + low).astype(np.int32)
    states, words = encode(q, np.full(components, number, np.uint8), lanes_of(q), SCRATCH)
    ideal = -(chances * np.log2(chances)).sum() + model.shift
    assert 16 * len(words) + 32 * len(states) < 1.01 * ideal * q.size + 32 * len(states)


def cost_of(q, number):
    """By the spec's words."""
    classes, tables, costs = reference.models()
    table, shift = classes[number][:2]
    largest, frequencies = tables[table]
    bits = 0
    for value in q.tolist():
        h = (value + (1 << shift >> 1)) >> shift
        inside = abs(h) <= largest
        bits += costs[frequencies[h + largest if inside else -1]] + COST * shift
        bits += 0 if inside else COST * ESCAPE_BITS
    return bits


@pytest.mark.parametrize("scale", [0.1, 0.5, 3.0, 20.0, 60.0, 900.0, 3e5])
@pytest.mark.parametrize("tokens", [1, 50, 600])
def test_no_class_costs_less_than_the_chosen(scale, tokens):
    """All of them, added up one by one; the lowest of the least is taken."""
    q = drawn(int(scale * 10) + tokens, 4, tokens, scale)
    q[2] = 0
    for line, number in zip(q, choose(q, SCRATCH).tolist(), strict=True):
        if not line.any():
            assert number == 0
            continue
        costs = [cost_of(line, other) for other in range(1, LAST + 1)]
        assert number == 1 + costs.index(min(costs))


def test_counts_reach_beyond_every_table():
    """What is cut off before it is counted is an escape of every table."""
    assert max(len(table) // 2 - 1 for table in models().frequencies) < NEAR - 1


def test_no_sum_of_costs_is_rounded():
    """Up to so many tokens, float32 holds whatever a component may cost."""
    most = max(float(table.max()) for table in _costs("f8"))
    assert COST * ESCAPE_BITS < most < 1 << 12
    assert [_held(tokens) for tokens in (1, 4096, 4097, 1 << 20)] == ["f4", "f4", "f8", "f8"]


def test_costs_of_many_tokens_are_exact():
    """Sums beyond what float32 holds."""
    q = np.full((1, 9000), 100, np.int32)
    q[0, ::2] = -128
    costs = [cost_of(q[0], other) for other in range(1, LAST + 1)]
    assert max(costs) > 1 << 24
    assert choose(q, SCRATCH).tolist() == [1 + costs.index(min(costs))]


@pytest.mark.parametrize("lanes", [1, 2, 7, 99, 100])
def test_any_number_of_lanes_will_do(lanes):
    """As long as there is a token for each; other readers agree."""
    random = np.random.default_rng(lanes)
    q = np.rint(random.laplace(size=(6, 100)) * np.geomspace(9, 0.2, 6)[:, None]).astype(np.int32)
    classes = choose(q, SCRATCH).copy()
    states, words = encode(q, classes, lanes, SCRATCH)
    assert len(states) == lanes
    assert np.array_equal(decoded(states, words, classes, 100), q)
    assert np.array_equal(reference.decode(states, words, classes, 100), q)
