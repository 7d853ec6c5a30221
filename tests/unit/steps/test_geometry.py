"""geometry: numbers and models' names, and what cannot be a cache."""

from __future__ import annotations

import pytest

from kvq_cli.errors import UsageError
from kvq_cli.steps.geometry import MODELS, MOST, Geometry, geometry_of
from kvq_cli.words import DType

SMALL = {"layers": 2, "kv_heads": 3, "tokens": 5, "head_dim": 7}


def refusal(call, *arguments, **numbers):
    with pytest.raises(UsageError) as refused:
        call(*arguments, **numbers)
    assert refused.value.error_id == "E101"
    return str(refused.value)


def test_the_numbers_are_the_shape():
    """Axes are those of the canonical layout; sizes count keys and values."""
    geometry = Geometry(**SMALL, batch=11, dtype=DType.F32)
    assert geometry.shape == (11, 2, 3, 5, 7)
    assert geometry.elements == 2 * 11 * 2 * 3 * 5 * 7
    assert geometry.role_bytes == 11 * 2 * 3 * 5 * 7 * 4
    told = geometry.to_json()
    assert told == {"model": None, **SMALL, "batch": 11, "dtype": "f32"}


@pytest.mark.parametrize("name", MOST)
def test_each_number_has_its_limits(name):
    """From 1 to what a container can say, both included."""
    ones = dict.fromkeys(MOST, 1)
    for number in (1, MOST[name]):
        assert getattr(Geometry(**(ones | {name: number})), name) == number
    for number in (0, -1, MOST[name] + 1, 10**4000):
        assert name in refusal(Geometry, **(ones | {name: number}))


def test_what_is_too_much_together():
    """No more heads than can be told apart, and no tensor that a header could not state."""
    assert Geometry(1 << 10, 1 << 10, 1, 1).kv_heads == 1 << 10
    refusal(Geometry, (1 << 10) + 1, 1 << 10, 1, 1)
    assert Geometry(1, 1, 1 << 40, 1 << 9).role_bytes == 1 << 50
    refusal(Geometry, 1, 1, 1 << 40, (1 << 9) + 1)
    refusal(Geometry, 1, 1, 1 << 40, 1 << 9, dtype=DType.F32)


def test_models():
    """A name gives all but the tokens, numbers come before it, spelling is as of profiles."""
    assert geometry_of("llama-3.1-70b", tokens=9) == Geometry(
        80, 8, 9, 128, dtype=DType.BF16, model="llama-3.1-70b"
    )
    assert geometry_of("SmolLM2_135M", tokens=9).model == "smollm2-135m"
    changed = geometry_of("llama-2-7b", "f32", tokens=9, layers=3, batch=None, kv_heads=None)
    assert changed == Geometry(3, 32, 9, 128, dtype=DType.F32, model="llama-2-7b")
    for name in MODELS:
        assert geometry_of(name, tokens=1).batch == 1


def test_without_a_model():
    """One batch entry of f16, unless something else is said."""
    assert geometry_of(**SMALL) == Geometry(**SMALL, batch=1, dtype=DType.F16)
    assert geometry_of(None, "bf16", **SMALL, batch=2).dtype is DType.BF16


@pytest.mark.parametrize("missing", SMALL)
def test_what_is_missing_is_named(missing):
    """By its option; what a model would tell is hinted at."""
    told = refusal(geometry_of, **{**SMALL, missing: None})
    assert told.startswith(f"--plan needs --{missing.replace('_', '-')}")
    assert ("--model" in told) == (missing != "tokens")
    assert refusal(geometry_of, "qwen3-8b") == "--plan needs --tokens"


@pytest.mark.parametrize("name", ["llama-3.1-8", "llama3.1-8b", "", "x" * 5000, "\x1b[31m\n"])
def test_an_unknown_model(name):
    """All are listed, and the nearest is suggested where there is one."""
    told = refusal(geometry_of, name, tokens=1)
    assert all(model in told for model in MODELS)
    assert ("did you mean" in told) == name.startswith("llama")
