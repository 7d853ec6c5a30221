"""turboquant_mse and turboquant_prod: the errors that theory promises, and the corners."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvq_cli.codecs import page_of
from kvq_cli.codecs.turboquant_mse import TurboquantMse
from kvq_cli.codecs.turboquant_prod import TurboquantProd
from kvq_cli.errors import CodecError
from kvq_cli.numerics.levels import levels
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec

# Mean squared error of unit rows before norm correction, by the exact density.
THEORY = {
    64: {1: 0.3584, 2: 0.1145, 3: 0.03339, 4: 0.00913},
    128: {1: 0.3609, 2: 0.1160, 3: 0.03397, 4: 0.009315},
    256: {1: 0.3621, 2: 0.1167, 3: 0.03426, 4: 0.00941},
}


def page(values, dtype=DType.F32):
    if dtype is DType.F16:
        return Page(PageSpec(*values.shape, dtype), values.astype(np.float16).view(np.uint16))
    return Page(PageSpec(*values.shape, dtype), values.astype(np.float32).view(np.uint32))


def restored(codec, original):
    """What comes back, as float64."""
    planes = codec.encode(original, Scratch())
    into = page_of(original.spec)
    codec.decode(planes, original.spec, into, Scratch())
    kind = np.float16 if original.spec.dtype is DType.F16 else np.float32
    return into.bits.view(kind).astype(np.float64)


def rows(count, channels, seed=0):
    return np.random.default_rng(seed).standard_normal((1, count, channels))


def relative(codec, values):
    found = restored(codec, page(values))
    return ((found - values) ** 2).sum() / (values**2).sum()


@pytest.mark.parametrize("channels", THEORY)
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("rotation", ["hadamard", "haar"])
def test_error_is_what_theory_says(channels, bits, rotation):
    """Within 1 %, for both rotations, over 20,000 rows."""
    codec = TurboquantMse(rotation=rotation, bits=bits, norm="f32", norm_correction=False)
    expected = THEORY[channels][bits]
    assert abs(relative(codec, rows(20_000, channels)) / expected - 1) < 0.01


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_restored_rows_have_their_length(bits):
    """With norm correction, to the digits of a float32 norm and of weights."""
    values = rows(500, 128)
    found = restored(TurboquantMse(bits=bits, norm="f32"), page(values))
    ratio = np.linalg.norm(found, axis=2) / np.linalg.norm(values, axis=2)
    assert np.abs(ratio - 1).max() < 2e-3
    plain = TurboquantMse(bits=bits, norm="f32", norm_correction=False)
    shrunk = np.linalg.norm(restored(plain, page(values)), axis=2).mean()
    assert shrunk < np.linalg.norm(found, axis=2).mean() or bits > 6


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_inner_products_are_right_on_average(bits):
    """10,000 pairs under 100 seeds: no bias beyond three standard errors; without QJL there is."""
    errors, shrunk = [], []
    for seed in range(100):
        values = rows(100, 64, seed)
        others = 0.5 * values[0] + rows(100, 64, 1000 + seed)[0]
        scale = np.linalg.norm(values[0], axis=1) * np.linalg.norm(others, axis=1)
        prod = restored(TurboquantProd(bits=bits, seed=seed, norm="f32"), page(values))[0]
        errors.append(((prod - values[0]) * others).sum(axis=1) / scale)
        mse = TurboquantMse(bits=bits, seed=seed, norm="f32", norm_correction=False)
        shrunk.append(((restored(mse, page(values))[0] - values[0]) * others).sum(axis=1) / scale)
    found, plain = np.concatenate(errors), np.concatenate(shrunk)
    assert abs(found.mean()) < 3 * found.std() / math.sqrt(len(found))
    assert plain.mean() < -10 * plain.std() / math.sqrt(len(plain)) or bits == 5


@pytest.mark.parametrize(("bits", "error"), [(2, 0.203), (3, 0.065), (4, 0.0191), (5, 0.0053)])
def test_error_of_the_sketch(bits, error):
    """As the page says, to 3 %."""
    codec = TurboquantProd(bits=bits, norm="f32")
    assert abs(relative(codec, rows(4000, 128)) / error - 1) < 0.03


def test_codes_are_the_nearest_levels_of_a_plain_rotation():
    """Held against float64: rotate, divide by the norm, take the nearest level."""
    from kvq_cli.numerics.rotation import rotation

    values = rows(200, 96)
    for kind in ("hadamard", "haar"):
        codec = TurboquantMse(rotation=kind, bits=3, seed=11, norm="f32", norm_correction=False)
        planes = codec.encode(page(values), Scratch())
        turning = rotation(kind, 96, 11)
        matrix = turning.turn(np.eye(96, dtype=np.float32), Scratch()).T.astype(float)
        turned = values[0] @ matrix.T / turning.gain * math.sqrt(96)
        turned /= np.linalg.norm(values[0], axis=1, keepdims=True)
        quantiser = levels(96, 3)
        table = np.concatenate([-quantiser.positive[::-1], quantiser.positive]) / 4096
        held = quantiser.restore(planes["codes"][0], Scratch()) / 4096
        best = np.abs(turned[..., None] - table).min(axis=2)
        assert (np.abs(turned - held) <= best + 2e-3).all()
        assert np.allclose(planes["norms"][0, :, 0], np.linalg.norm(values[0], axis=1), rtol=1e-4)


@pytest.mark.parametrize("kind", [TurboquantMse, TurboquantProd])
def test_norms_beyond_their_dtype_are_refused(kind):
    """A row of 128 elements of 6000 has a norm of 67,882: f16 ends before it, f32 does not."""
    original = page(np.full((1, 1, 128), 6000.0), DType.F16)
    with pytest.raises(CodecError) as refusal:
        kind().encode(original, Scratch())
    assert refusal.value.error_id == "E501"
    assert np.isfinite(restored(kind(norm="f32"), original)).all()


@pytest.mark.parametrize("kind", [TurboquantMse, TurboquantProd])
def test_too_many_channels_are_refused(kind):
    """There is no rotation beyond 640: E501, which a profile may take for raw pages."""
    original = page(np.ones((1, 1, 641)), DType.F16)
    assert kind().layout(original.spec)
    with pytest.raises(CodecError) as refusal:
        kind().encode(original, Scratch())
    assert refusal.value.error_id == "E501"


@pytest.mark.parametrize("exponent", [-149, -130, -100, 0, 60, 110])
def test_rows_of_every_size_have_the_same_error(exponent):
    """With norms in f32; among subnormal numbers, factors run out of digits and rows fade out."""
    values = np.rint(rows(50, 64) * 2**6) * 2.0**exponent
    values = values.astype(np.float32).astype(np.float64)
    found = relative(TurboquantMse(bits=4, norm="f32"), values)
    assert found < (0.011 if exponent > -120 else 1.001)


def test_another_seed_is_another_rotation():
    """Codes differ, errors do not."""
    values = rows(300, 64)
    one, other = (TurboquantMse(seed=seed) for seed in (0, 1))
    first, second = (
        codec.encode(page(values), Scratch())["codes"].copy() for codec in (one, other)
    )
    assert (first != second).mean() > 0.5
    assert abs(relative(one, values) / relative(other, values) - 1) < 0.05
