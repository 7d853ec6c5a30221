"""Weights of keys and values against sums written down one query and token at a time."""

from __future__ import annotations

import numpy as np
import pytest

from kvq_cli.steps import sensitivity
from kvq_cli.steps.given import opened
from kvq_cli.steps.rotary import rotary_of
from kvq_cli.steps.sensitivity import TV, Look, Turning, measured
from support.calibrating import (
    CHANNELS,
    GROUPED,
    HEADS,
    LAYERS,
    METADATA,
    capture,
    queries,
    rows,
    turned,
    write_captures,
)

TOKENS, SKIP = 60, 4
POSITIONS = range(5, TOKENS, 10)


@pytest.fixture
def given(tmp_path):
    write_captures(tmp_path, 1, TOKENS)
    with opened([tmp_path / "a.safetensors"], [], None, {}) as (found,):
        yield found


def look(given, layer=1, *, done=True, skip=SKIP):
    rotary = rotary_of(METADATA, 0, CHANNELS)
    turning = Turning(rotary.turn(TOKENS), 1.0, done)
    return Look(given, given.capture.layers[layer], 0, turning, skip)


def asked(layer=1):
    """The queries of queries(0, …), times the scale: (Hq, n, D)."""
    random = np.random.default_rng([0, 9])
    shape = (1, LAYERS, HEADS * GROUPED, len(POSITIONS), CHANNELS)
    return random.standard_normal(shape).astype("<f4").astype(float)[0, layer] / CHANNELS**0.5


def plainly(queries, sees, key, values, skip=SKIP):
    """Sums over queries: of key weights (H, D, D), and of value weights (H,)."""
    keys_sum, values_sum = np.zeros((HEADS, CHANNELS, CHANNELS)), np.zeros(HEADS)
    each = len(queries) // HEADS
    for number, rows_of in enumerate(queries):
        head = number // each
        for query, seen in zip(rows_of, sees, strict=True):
            logits = key[head, :seen] @ query
            paid = np.exp(logits - logits.max())
            paid /= paid.sum()
            gives = paid @ values[head, :seen]
            for token in range(skip, seen):
                back = turned(query[None], [token], back=True)[0]
                away = values[head, token] - gives
                share = paid[token] ** 2 * (away @ away) / (gives @ gives)
                share += TV * paid[token] * (1 - paid[token])
                keys_sum[head] += share * np.outer(back, back)
                values_sum[head] += paid[token] ** 2 / (gives @ gives)
    return keys_sum, values_sum


def sides(layer=1):
    key, value = rows(0, TOKENS, 0)[layer], rows(0, TOKENS, 1)[layer]
    return turned(key, np.arange(TOKENS)).astype("<f4").astype(float), value.astype("<f4")


@pytest.mark.parametrize("block", [1 << 20, 7 * HEADS * len(POSITIONS) * GROUPED])
def test_weights_are_those_of_plain_sums(given, block, monkeypatch):
    """In one block of tokens and in several, with room for all of them."""
    monkeypatch.setattr(sensitivity, "BLOCK", block)
    monkeypatch.setattr(sensitivity, "KEPT", TOKENS)
    found = measured(look(given), own=False)
    key, value = sides()
    keys, values = plainly(asked(), [at + 1 for at in POSITIONS], key, value)
    np.testing.assert_allclose(found.keys, keys, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.values, values, rtol=1e-6)
    assert found.queries == len(POSITIONS) * GROUPED


def test_the_largest_shares_stand_for_all(given, monkeypatch):
    """The trace is that of all tokens, since turning changes no length; values have no limit."""
    monkeypatch.setattr(sensitivity, "KEPT", TOKENS)
    whole = measured(look(given), own=False)
    monkeypatch.setattr(sensitivity, "KEPT", 5)
    found = measured(look(given), own=False)
    traces = [np.trace(each.keys, axis1=1, axis2=2) for each in (whole, found)]
    np.testing.assert_allclose(*traces, rtol=1e-9)
    assert np.abs(found.keys - whole.keys).max() > 1e-6
    np.testing.assert_array_equal(found.values, whole.values)


def test_no_more_queries_than_asked(given, monkeypatch):
    """Evenly chosen, the first and the last among them."""
    monkeypatch.setattr(sensitivity, "MOST", 3)
    found, sees = look(given).queries(own=False)
    assert found.shape == (HEADS, 3 * GROUPED, CHANNELS)
    assert sees.tolist() == [6, 26, 56] * GROUPED


def test_keys_that_are_not_turned_yet(tmp_path, monkeypatch):
    """The same weights, whether a capture has its keys before or after their turn."""
    monkeypatch.setattr(sensitivity, "KEPT", TOKENS)
    found = []
    for state in ("post", "pre"):
        path = tmp_path / f"{state}.safetensors"
        path.write_bytes(capture(0, TOKENS, METADATA | {"rope_state": state}))
        beside = tmp_path / f"{state}.query.safetensors"
        beside.write_bytes(queries(0, POSITIONS))
        with opened([path], [], None, {}) as (given,):
            found.append(measured(look(given, done=state == "post"), own=False))
    np.testing.assert_allclose(found[0].keys, found[1].keys, rtol=1e-4, atol=1e-7)


def test_the_last_keys_stand_in(given, monkeypatch):
    """Each key is one query of its own head, and sees what is not behind it."""
    monkeypatch.setattr(sensitivity, "KEPT", TOKENS)
    monkeypatch.setattr(sensitivity, "MOST", 1000)
    found = measured(look(given), own=True)
    key, value = sides()
    expected = plainly(key / CHANNELS**0.5, range(1, TOKENS + 1), key, value)
    np.testing.assert_allclose(found.keys, expected[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.values, expected[1], rtol=1e-4)
    assert found.queries == TOKENS
