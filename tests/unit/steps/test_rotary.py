"""Rotary positions: frequencies, tables at any position, and what metadata must say of them."""

from __future__ import annotations

import json
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from kvq_cli.codecs.basis import UNIT
from kvq_cli.errors import CaptureError, UsageError
from kvq_cli.steps.rotary import Rotary, kind_of, rotary_of, turned_state
from kvq_cli.steps.turning import Angles
from support.calibrating import turned

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def rotary(channels=64, theta="10000.0", scaling=None, **more):
    told = {"rope_theta": theta} | more
    if scaling is not None:
        told["rope_scaling"] = json.dumps(scaling)
    return rotary_of(told, 0, channels)


def plain(theta, channels):
    return theta ** (-np.arange(0, channels, 2) / channels)


def llama3(theta, channels):
    """As transformers computes it, with wavelengths."""
    found = plain(theta, channels)
    waves = 2 * math.pi / found
    low, high = 8192 / 1.0, 8192 / 4.0
    smooth = (8192 / waves - 1.0) / (4.0 - 1.0)
    between = (1 - smooth) * found / 8 + smooth * found
    slow = np.where(waves > low, found / 8, found)
    return np.where((waves >= high) & (waves <= low), between, slow)


def yarn(theta, channels, *, truncate=True):
    """As transformers computes it, with a ramp between two corrected dimensions."""

    def dimension(turns):
        return channels * math.log(32768 / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(32), dimension(1)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, channels - 1)
    ramp = np.clip((np.arange(channels // 2) - low) / (high - low), 0, 1)
    found = plain(theta, channels)
    return found / 4 * ramp + found * (1 - ramp)


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (None, plain(1e6, 128)),
        ({"rope_type": "default"}, plain(1e6, 128)),
        ({"type": "linear", "factor": 8}, plain(1e6, 128) / 8),
        (LLAMA3, llama3(1e6, 128)),
        (YARN, yarn(1e6, 128)),
        (YARN | {"truncate": False}, yarn(1e6, 128, truncate=False)),
    ],
)
def test_frequencies_are_those_of_the_model(scaling, expected):
    found = rotary(128, "1e6", scaling)
    np.testing.assert_allclose([float(each) for each in found.frequencies], expected, rtol=1e-12)


def test_the_attention_factor_of_yarn_is_apart():
    """Told, or from the factor; from mscale where both are there."""
    assert rotary(scaling=YARN).factor == pytest.approx(0.1 * math.log(4) + 1)
    assert rotary(scaling=YARN | {"attention_factor": 1.5}).factor == 1.5
    both = {"mscale": 1.0, "mscale_all_dim": 0.5}
    expected = (0.1 * math.log(4) + 1) / (0.05 * math.log(4) + 1)
    assert rotary(scaling=YARN | both).factor == pytest.approx(expected)
    assert rotary(scaling=LLAMA3).factor == 1.0


def sine(angle: Decimal) -> Decimal:
    """Of any angle, by its series, after whole turns are taken off."""
    two_pi = Decimal("6.28318530717958647692528676655900576839433879875021164194988918")
    rest = angle % two_pi
    term, total, at = rest, rest, 1
    while abs(term) > Decimal(10) ** -40:
        at += 2
        term = -term * rest * rest / (at * (at - 1))
        total += term
    return total


@pytest.mark.parametrize("scaling", [None, LLAMA3, YARN])
def test_tables_hold_sines_to_the_last_unit_at_large_positions(scaling):
    """Against series of 60 digits; the first pair turns more than 20,000 times."""
    found = rotary(16, "500000.0", scaling)
    turn = found.turn(1000)
    assert turn.positions == 131072
    half_pi = Decimal("1.570796326794896619231321691639751442098584699687552910487472296")
    with localcontext() as context:
        context.prec = 60
        for place in (0, 1, 17, 511):
            for pair, frequency in enumerate(found.frequencies):
                for table, position in ((turn.coarse, 256 * place), (turn.fine, place % 256)):
                    angle = position * frequency
                    told = table[place if table is turn.coarse else place % 256, pair]
                    assert abs(told[0] * UNIT - float(sine(angle + half_pi))) <= 0.51 * UNIT
                    assert abs(told[1] * UNIT - float(sine(angle))) <= 0.51 * UNIT


def test_longer_captures_get_longer_tables():
    found = rotary(8)
    assert found.turn(131073).positions == 131072 + 256
    assert found.turn(1 << 20).positions == 1 << 20
    with pytest.raises(CaptureError) as refusal:
        found.turn((1 << 20) + 1)
    assert refusal.value.error_id == "E207"


@pytest.mark.parametrize("style", ["half-rotated", "interleaved"])
@pytest.mark.parametrize("part", [1.0, 0.5])
@pytest.mark.parametrize("scaling", [{}, YARN])
def test_turning_back_undoes_turning(style, part, scaling):
    """At small and large positions, with yarn too: its factor is no part of the table."""
    told = scaling | {"partial_rotary_factor": part}
    found = rotary(16, scaling=told, rope_style=style)
    positions = np.array([0, 1, 255, 256, 4097, 131071])
    angles = Angles.of(found.turn(10), positions)
    rows = np.random.default_rng(0).standard_normal((3, 6, 16))
    away = angles.turned(rows)
    np.testing.assert_allclose(angles.back().turned(away), rows, atol=2e-6)
    np.testing.assert_array_equal(away[..., int(16 * part) :], rows[..., int(16 * part) :])
    if not scaling:
        inter = style == "interleaved"
        expected = turned(rows, positions, interleaved=inter, turning=int(16 * part))
        np.testing.assert_allclose(away, expected, atol=2e-6)


def test_layer_types_have_their_own():
    """Bases and scalings by the words of layer_types, as transformers tells them."""
    told = {
        "rope_theta": '{"full": 1000000.0, "sliding": 10000.0}',
        "rope_scaling": '{"full": {"rope_type": "linear", "factor": 8.0}, "sliding": null}',
        "layer_types": '["sliding", "full", "sliding"]',
    }
    found = [rotary_of(told, place, 64) for place in range(3)]
    assert found[0] == found[2] != found[1]
    assert found[0] == rotary(64, "10000.0")
    assert found[1] == rotary(64, "1000000.0", {"rope_type": "linear", "factor": 8.0})
    assert [kind_of(told, place) for place in range(3)] == ["sliding", "full", "sliding"]


def test_the_base_may_stand_in_the_scaling():
    scaling = json.dumps({"rope_type": "default", "rope_theta": 500.0})
    assert rotary_of({"rope_scaling": scaling}, 0, 8) == rotary(8, "500.0")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "no rope_theta"),
        ({"rope_theta": "1"}, "more than 1"),
        ({"rope_theta": "-3"}, "positive"),
        ({"rope_theta": "true"}, "more than 1"),
        ({"rope_theta": '"x"'}, "positive"),
        ({"rope_theta": "{"}, "no JSON"),
        ({"rope_theta": '{"full": 3}'}, "no rope_theta"),
        ({"rope_theta": "10", "rope_style": "spiral"}, "rope_style"),
        ({"rope_theta": "10", "rope_scaling": "[]"}, "no object"),
        ({"rope_theta": "10", "rope_scaling": '{"rope_type": "longrope"}'}, "longrope"),
        ({"rope_theta": "10", "rope_scaling": '{"rope_type": "dynamic"}'}, "dynamic"),
        ({"rope_theta": "10", "rope_scaling": '{"rope_type": "linear"}'}, "factor is missing"),
        ({"rope_theta": "10", "rope_scaling": '{"rope_type":"linear","factor":0}'}, "positive"),
        ({"rope_theta": "10", "rope_scaling": '{"rope_type":"linear","factor":2,"x":1}'}, "odd"),
        ({"rope_theta": "10", "rope_scaling": '{"mrope_section": [1]}'}, "mrope_section"),
        ({"rope_theta": "10", "rope_scaling": '{"partial_rotary_factor": 0.4}'}, "pairs"),
        ({"rope_theta": "10", "layer_types": "[]"}, "layer_types"),
        ({"rope_theta": "10", "layer_types": "3"}, "layer_types"),
        ({"rope_theta": "10", "rope_scaling": json.dumps(LLAMA3 | {"high_freq_factor": 1})}, "hi"),
        ({"rope_theta": "10", "rope_scaling": '{"rope_type":["yarn"]}'}, "rope_type"),
    ],
)
def test_what_is_not_told_is_not_guessed(told, words):
    """Each is wrong usage, in words that --meta can answer."""
    with pytest.raises(UsageError, match=words) as refusal:
        rotary_of(told, 0, 8)
    assert refusal.value.error_id == "E101"
    assert "--meta" in str(refusal.value)


def test_states():
    """Turned, not yet, never; anything else is asked for."""
    assert turned_state({"rope_state": "post"}) is True
    assert turned_state({"rope_state": "pre_rope"}) is False
    assert turned_state({"rope_state": "none"}) is None
    for told in ({}, {"rope_state": "perhaps"}):
        with pytest.raises(UsageError, match="rope_state=post"):
            turned_state(told)


def test_equal_ones_are_one():
    assert rotary(8) == Rotary(False, rotary(8).frequencies)
    assert hash(rotary(8)) == hash(rotary(8))
