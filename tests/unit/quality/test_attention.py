"""attention: against plain float64 NumPy, by hand, and against the numbers of fib-quant."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.attention import drift, turned

from kvq_cli.quality import EXACT, FLOATS, METRICS, Attention, Kept, Rope, Side
from kvq_cli.words import Role


def reader(before, after):
    """`read` over whole arrays, (kv heads, T, D)."""

    def read(role, start, stop):
        at = 0 if role is Role.KEY else 1
        sides = {"before": before, "after": after}
        return tuple(
            Side(name, lambda rows=rows: rows[at][:, start:stop]) for name, rows in sides.items()
        )

    return read


def case(seed, heads=2, share=3, queries=5, tokens=37, channels=16, noise=0.1):
    rng = np.random.Generator(np.random.PCG64(seed))
    before = tuple(rng.standard_normal((2, heads, tokens, channels)) * 2)
    after = tuple(each + noise * rng.standard_normal(each.shape) for each in before)
    asked = rng.standard_normal((heads, share, queries, channels))
    return asked, before, after


def measured(asked, sees, before, after, cuts, **more):
    attention = Attention(asked, np.array(sees), **more)
    return attention.drift(cuts, reader(before, after))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3), st.integers(1, 40), st.data())
def test_as_plain_numpy_says(seed, heads, share, tokens, data):
    """Any geometry, any mask, any cutting into blocks: the same as one query at a time."""
    asked, before, after = case(seed, heads, share, 4, tokens)
    sees = data.draw(st.lists(st.integers(1, tokens), min_size=4, max_size=4))
    edges = sorted({0, tokens, *data.draw(st.lists(st.integers(0, tokens), max_size=3))})
    cuts = list(pairwise(edges))
    found = measured(asked * 0.25, sees, before, after, cuts)
    expected = drift(asked.reshape(-1, *asked.shape[2:]), sees, before, after, 0.25)
    assert tuple(found) == METRICS
    for name in METRICS:
        np.testing.assert_allclose(
            found[name].reshape(-1), expected[name], rtol=1e-9, atol=1e-14, err_msg=name
        )


def test_queries_in_parts(monkeypatch):
    """More logits than a tile are done in parts, and give the same."""
    asked, before, after = case(5)
    whole = measured(asked, [30] * 5, before, after, [(0, 37)])
    monkeypatch.setattr("kvq_cli.quality.attention.TILE", 200)
    parts = measured(asked, [30] * 5, before, after, [(0, 20), (20, 37)])
    for name in METRICS:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-12)


@pytest.mark.parametrize("room", [0, 900, 1 << 20])
def test_logits_that_are_kept_change_nothing(room):
    """Whatever there is room for, asked twice, the bits are the same."""
    asked, before, after = case(9)
    cuts, kept = [(0, 20), (20, 37)], Kept(room)
    attention = Attention(asked, np.full(5, 30), arithmetic=EXACT)
    plain = attention.drift(cuts, reader(before, after))
    for _ in range(2):
        again = attention.drift(cuts, reader(before, after), kept)
        assert all(again[name].tobytes() == plain[name].tobytes() for name in METRICS)


def test_keys_are_read_once():
    """Logits are kept for the second look at a block."""
    asked, before, after = case(10)
    made = []

    def read(role, start, stop):
        def rows(side):
            made.append((role, start))
            return side[0 if role is Role.KEY else 1][:, start:stop]

        return Side("before", lambda: rows(before)), Side("after", lambda: rows(after))

    Attention(asked, np.full(5, 37)).drift([(0, 20), (20, 37)], read)
    assert sorted(made) == sorted([(role, start) for role in Role for start in (0, 0, 20, 20)])


def test_exact_arithmetic_is_near_and_knows_no_machine():
    """Within 1e-4 of float64, and bit for bit the same however channels are ordered."""
    asked, before, after = case(7, channels=64)
    sees = [37, 1, 20, 36, 37]
    bounded = [name for name in METRICS if name != "attention_kl"]
    plain = measured(asked, sees, before, after, [(0, 37)], wanted=bounded)
    found = measured(asked, sees, before, after, [(0, 37)], wanted=bounded, arithmetic=EXACT)
    order = np.random.Generator(np.random.PCG64(1)).permutation(64)
    mixed = [tuple(each[..., order] for each in side) for side in (before, after)]
    again = measured(asked[..., order], sees, *mixed, [(0, 37)], wanted=bounded, arithmetic=EXACT)
    for name in bounded:
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-4, atol=1e-9)
        if name not in ("value_aggregation_mse", "attention_cosine"):
            assert found[name].tobytes() == again[name].tobytes()


def test_nothing_changed():
    """Identity is exactly 0, and a cosine of 1 but for rounding."""
    asked, before, _ = case(3)
    for arithmetic in (FLOATS, EXACT):
        found = measured(asked, [9] * 5, before, before, [(0, 37)], arithmetic=arithmetic)
        for name in METRICS[:-1]:
            assert not found[name].any(), name
        np.testing.assert_allclose(found["attention_cosine"], 1, rtol=1e-12)


def test_only_what_is_wanted_is_read():
    """Bounds on logits need no values."""
    asked, before, after = case(4)

    def read(role, start, stop):
        assert role is Role.KEY
        return reader(before, after)(role, start, stop)

    attention = Attention(asked, np.full(5, 37), ["attention_tv"])
    assert tuple(attention.drift([(0, 37)], read)) == ("attention_tv",)


def test_equal_logits_go_by_their_place():
    """With 12 equal keys the first 8 are chosen; raising a later one by much changes one."""
    keys = np.ones((1, 12, 4))
    raised = keys.copy()
    raised[0, 11] = 2
    values = np.ones((1, 12, 4))
    asked = np.ones((1, 1, 1, 4))
    for cuts in ([(0, 12)], [(0, 3), (3, 9), (9, 12)]):
        same = measured(asked, [12], (keys, values), (keys, values), cuts)
        moved = measured(asked, [12], (keys, values), (raised, values), cuts)
        assert same["topk_disagreement"].item() == 0
        assert moved["topk_disagreement"].item() == 1 / 8


def test_outputs_of_zeros():
    """Nothing against nothing is the same direction, against something no direction at all."""
    asked, before, _ = case(6)
    zeros = np.zeros_like(before[1])
    both = measured(asked, [37] * 5, (before[0], zeros), (before[0], zeros), [(0, 37)])
    one = measured(asked, [37] * 5, (before[0], zeros), before, [(0, 37)])
    assert (both["attention_cosine"] == 1).all()
    assert (one["attention_cosine"] == 0).all()


def test_huge_logits_do_not_overflow():
    """Attention to one token, whatever the scale."""
    asked, before, after = case(8)
    found = measured(asked * 1e6, [37] * 5, before, after, [(0, 20), (20, 37)])
    assert all(np.isfinite(each).all() for each in found.values())


def test_the_quality_vector_of_fib_quant():
    """Its inputs and figures; it rounds logits and weights to float32, and we do not."""
    query = np.float32([0.2, -0.1, 0.3, 0.4])
    keys = np.float32([0.1, 0.2, 0.3, 0.4, -0.2, 0.1, 0, 0.5, 0.4, 0.3, 0.2, 0.1]).reshape(1, 3, 4)
    values = np.float32([0.3, 0.1, -0.1, 0.2, 0, 0.4, 0.2, -0.2, 0.5, -0.1, 0.1, 0.3])
    values = values.reshape(1, 3, 4)
    before = [each.astype(float) for each in (keys, values)]
    after = [each.astype(float) for each in (keys * np.float32(0.98), values * np.float32(1.01))]
    asked = query.astype(float).reshape(1, 1, 1, 4) / 2
    found = measured(asked, [3], before, after, [(0, 3)], top=2)
    assert found["logit_mse"].item() == pytest.approx(3.583315571190996e-06, rel=1e-5)
    assert found["attention_tv"].item() == pytest.approx(0.00022579729557037354, rel=2e-5)
    assert found["value_aggregation_mse"].item() == pytest.approx(2.580692669632012e-06, rel=2e-5)
    assert found["topk_disagreement"].item() == 0.5
    assert _as_float32(before[0][0] @ query / 2, after[0][0] @ query / 2) == pytest.approx(
        1.427122852840719e-07, rel=1e-9
    )
    assert found["attention_kl"].item() == pytest.approx(1.427e-07, abs=6e-8)


def _as_float32(logits, others):
    """The KL divergence as fib-quant computes it: weights are rounded to float32."""
    sides = []
    for each in (logits.astype(np.float32), others.astype(np.float32)):
        weights = np.exp((each - each.max()).astype(np.float64))
        sides.append(np.float32(weights / weights.sum()).astype(np.float64))
    one, other = sides
    return float((one * np.log(np.maximum(one, 1e-12) / np.maximum(other, 1e-12))).sum())


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("theta", [10_000.0, 1e6, 500_000.5])
def test_rotary_positions(interleaved, theta):
    """As complex numbers turn, far out too; lengths stay."""
    rows = np.random.Generator(np.random.PCG64(2)).standard_normal((2, 5, 16))
    positions = np.array([0, 1, 7, 4096, 99_999])
    found = Rope(theta, interleaved).rotate(rows, positions)
    expected = turned(rows, positions, theta, interleaved=interleaved)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        np.linalg.norm(found, axis=-1), np.linalg.norm(rows, axis=-1), rtol=1e-14
    )
    assert (found[:, 0] == rows[:, 0]).all()
