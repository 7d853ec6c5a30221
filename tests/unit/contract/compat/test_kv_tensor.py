"""Tensors in pages: what stays raw and why, other tables, damaged pages."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from kvq_cli.contract.compat.coding import Refusal
from kvq_cli.contract.compat.fib_code import FibCodeV1
from kvq_cli.contract.compat.kv_decode import decode_tensor
from kvq_cli.contract.compat.kv_encode import encode_tensor
from kvq_cli.contract.compat.kv_pages import KvEncodedPageV1
from kvq_cli.contract.compat.vector_code import REASONS, Quantizer
from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.policies import KvFallbackPolicyV1, KvProtectedPolicyV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import KvAxisPolicyV1, KvDType, KvFallbackModeV1
from kvq_cli.errors import CodecError, KvqError, ProfileError
from support.kv_profiles import KEYS, OF_VALUES, ZERO, kv_profile

SHAPE = dataclasses.replace(KEYS, **OF_VALUES, batch=2, head_dim=8, dtype=KvDType.F32)
QUANTIZER = Quantizer.build(
    dataclasses.replace(
        FibQuantProfileV1.paper_default(8, 2, 8, 1), lloyd_restarts=1, lloyd_iterations=1
    )
)
VALUES = np.random.default_rng(4).normal(size=(2, 2, 2, 5, 8)).astype(np.float32)
CLOSED = KvFallbackPolicyV1(mode=KvFallbackModeV1.FAIL_CLOSED)


def profile(axis: KvAxisPolicyV1 = KvAxisPolicyV1.PER_TOKEN, **changes: Any) -> Any:
    made = kv_profile(
        SHAPE,
        page_tokens=2,
        encoded_bytes=64,
        fib_profile=QUANTIZER.profile,
        codebook_digest=QUANTIZER.codebook_digest,
        rotation_digest=QUANTIZER.codebook.rotation_digest,
        axis_policy=axis,
    )
    return dataclasses.replace(made, **changes)


def encode(of: Any, values: np.ndarray = VALUES) -> tuple[KvEncodedPageV1, ...]:
    return encode_tensor(SHAPE, of, values, QUANTIZER)


def reasons(pages: tuple[KvEncodedPageV1, ...]) -> dict[Any, str]:
    return {block.place: block.reason for page in pages for block in page.encoded_blocks}


def refused(kind: type[KvqError], error_id: str, call: Any, *args: Any) -> Any:
    with pytest.raises(kind) as refusal:
        call(*args)
    assert refusal.value.error_id == error_id
    return refusal.value


PAGES = encode(profile())


def test_pages_hold_every_vector_in_order() -> None:
    """Pages are ranges of tokens; in them the token is fastest, and blocks are counted from 0."""
    assert [(page.token_start, page.token_count) for page in PAGES] == [(0, 2), (2, 2), (4, 1)]
    places = [block.place for block in PAGES[1].encoded_blocks]
    assert places == sorted(places)
    assert {token for *_, token in places} == {2, 3}
    assert [block.block_id for block in PAGES[2].encoded_blocks] == list(range(8))
    assert len(reasons(PAGES)) == SHAPE.vector_count


def test_values_come_back_as_their_codes_say() -> None:
    """Each vector is what its own code decodes to, and the layout of the array does not matter."""
    decoded = decode_tensor(SHAPE, profile(), PAGES, QUANTIZER)
    for place in np.ndindex(2, 2, 2, 5):
        assert np.array_equal(decoded[place], QUANTIZER.restore(QUANTIZER.code(VALUES[place])))
    assert encode(profile(), np.asfortranarray(VALUES)) == PAGES
    assert encode(profile(), VALUES.reshape(-1)) == PAGES


@pytest.mark.parametrize("seed", [0, 1])
def test_protected_vectors_stay_raw(seed: int) -> None:
    """Tokens at both ends, listed layers and listed heads are kept to the bit, and only those."""
    policy = (
        KvProtectedPolicyV1(first_tokens_raw=1, last_tokens_raw=1, raw_layers=(1,)),
        KvProtectedPolicyV1(raw_heads=(0,), last_tokens_raw=2),
    )[seed]
    of = profile(protected_policy=policy)
    pages = encode(of)
    decoded = decode_tensor(SHAPE, of, pages, QUANTIZER)
    for place, reason in reasons(pages).items():
        raw = policy.is_protected(SHAPE, *place[1:])
        assert reason == ("protected_region" if raw else "fib_quant_per_token")
        assert np.array_equal(decoded[place], VALUES[place]) == raw
    assert [page.raw_fallback_blocks for page in pages] == [
        sum(block.reason == "protected_region" for block in page.encoded_blocks) for page in pages
    ]


@pytest.mark.parametrize(
    ("axis", "reason"),
    [
        (KvAxisPolicyV1.RAW, "raw_axis_policy"),
        (KvAxisPolicyV1.PER_CHANNEL, "unsupported_axis_raw_fallback"),
        (KvAxisPolicyV1.ROLE_AWARE_KIVI_STYLE, "unsupported_axis_raw_fallback"),
    ],
)
def test_other_axes_stay_raw(axis: KvAxisPolicyV1, reason: str) -> None:
    """What is not coded per token is kept to the bit."""
    pages = encode(profile(axis))
    assert set(reasons(pages).values()) == {reason}
    assert np.array_equal(decode_tensor(SHAPE, profile(axis), pages, QUANTIZER), VALUES)


def test_unsupported_axes_fail_closed() -> None:
    """Without a fallback they are refused, unless there is nothing to code."""
    closed = {"fallback_policy": CLOSED}
    for axis in (KvAxisPolicyV1.PER_CHANNEL, KvAxisPolicyV1.ROLE_AWARE_KIVI_STYLE):
        error = refused(ProfileError, "E403", encode, profile(axis, **closed))
        assert error.pointer == "/axis_policy"
    protected = KvProtectedPolicyV1(first_tokens_raw=5)
    covered = profile(KvAxisPolicyV1.PER_CHANNEL, protected_policy=protected, **closed)
    assert set(reasons(encode(covered)).values()) == {"protected_region"}
    assert set(reasons(encode(profile(KvAxisPolicyV1.RAW, **closed))).values()) == {
        "raw_axis_policy"
    }


def test_vectors_without_a_code_fall_back() -> None:
    """They stay raw with the reference's words for why, or are refused where that is forbidden."""
    values = VALUES.copy()
    values[0, 0, 1, 2] = 0.0
    values[1, 1, 0, 4] = 1e5
    pages = encode(profile(), values)
    why = reasons(pages)
    assert why[0, 0, 1, 2] == f"encode_fallback:{REASONS[Refusal.ZERO_NORM]}"
    assert why[1, 1, 0, 4] == f"encode_fallback:{REASONS[Refusal.NORM_RANGE]}"
    assert [page.raw_fallback_blocks for page in pages] == [0, 1, 1]
    decoded = decode_tensor(SHAPE, profile(), pages, QUANTIZER)
    assert np.array_equal(decoded[1, 1, 0, 4], values[1, 1, 0, 4])
    refused(CodecError, "E501", encode, profile(fallback_policy=CLOSED), values)
    assert encode(profile(fallback_policy=CLOSED))[0].encoded_blocks == PAGES[0].encoded_blocks


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tensors_are_finite(value: float) -> None:
    """A value that is not finite is refused, under any policy."""
    values = VALUES.copy()
    values[0, 1, 0, 1, 7] = value
    for axis in KvAxisPolicyV1:
        refused(CodecError, "E501", encode, profile(axis), values)


def test_tensors_have_the_size_of_the_shape() -> None:
    """Values of another number are refused."""
    refused(CodecError, "E501", encode, profile(), VALUES[:1])


@pytest.mark.parametrize("name", ["codebook_digest", "rotation_digest"])
def test_profiles_name_the_tables(name: str) -> None:
    """A profile that names another codebook or rotation is refused, before anything is coded."""
    other = profile(**{name: ZERO})
    for call in (encode, lambda of: decode_tensor(SHAPE, of, PAGES, QUANTIZER)):
        assert refused(ProfileError, "E402", call, other).pointer == f"/{name}"


def test_tables_are_those_of_the_profile() -> None:
    """A quantizer of another vector profile is refused; without one it is made."""
    other = Quantizer.build(dataclasses.replace(QUANTIZER.profile, codebook_version="x"))
    error = refused(ProfileError, "E402", encode_tensor, SHAPE, profile(), VALUES, other)
    assert error.pointer == "/fib_profile_digest"
    assert encode_tensor(SHAPE, profile(), VALUES) == PAGES


@pytest.mark.parametrize(
    "change",
    [
        {"page_id": 1},
        {"token_start": 2},
        {"token_count": 1},
        {"profile_digest": ZERO},
        {"shape_digest": ZERO},
        {"source_tensor_digest": ZERO},
        {"page_geometry": KvPageGeometryV1.new(3, 8, 64)},
        {"raw_fallback_blocks": 1},
        {"encoded_blocks": PAGES[0].encoded_blocks[:-1]},
        {"encoded_blocks": PAGES[0].encoded_blocks[::-1]},
        {"page_digest": ""},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("signed", [False, True])
def test_damaged_pages(change: dict[str, Any], *, signed: bool) -> None:
    """A page that is not as it was written is refused, whatever digest it claims."""
    page = dataclasses.replace(PAGES[0], **change)
    if signed:
        if next(iter(change)) in ("page_digest", "source_tensor_digest"):
            return  # a new digest heals the one; the other names a tensor that is not here
        page = page.signed()
    damaged = (page, *PAGES[1:])
    refused(CodecError, "E502", decode_tensor, SHAPE, profile(), damaged, QUANTIZER)


def test_pages_are_complete() -> None:
    """A page missing, twice, or in another place is refused."""
    for pages in (PAGES[:-1], (*PAGES, PAGES[-1]), PAGES[::-1], (PAGES[0], PAGES[0], PAGES[2])):
        refused(CodecError, "E502", decode_tensor, SHAPE, profile(), pages, QUANTIZER)


@pytest.mark.parametrize(
    "change",
    [
        {"raw_fallback": True},
        {"encoding": (0.0,) * 8},
        {"encoding": (0.0,) * 7, "raw_fallback": True},
        {"encoding": (float("inf"),) * 8, "raw_fallback": True},
    ],
    ids=str,
)
def test_damaged_blocks(change: dict[str, Any]) -> None:
    """A block that contradicts itself is refused under a digest that holds."""
    block = dataclasses.replace(PAGES[0].encoded_blocks[0], **change)
    page = dataclasses.replace(
        PAGES[0],
        encoded_blocks=(block, *PAGES[0].encoded_blocks[1:]),
        raw_fallback_blocks=int(block.raw_fallback),
    ).signed()
    damaged = (page, *PAGES[1:])
    refused(CodecError, "E502", decode_tensor, SHAPE, profile(), damaged, QUANTIZER)


def test_blocks_are_written_as_one_of_two() -> None:
    """A coded block holds a code, a raw one float32 values as short as they can be."""
    code = PAGES[0].encoded_blocks[0].encoding
    assert isinstance(code, FibCodeV1)
    assert f'"encoding":{{"fib_quant":{{"code":{code.compact()}}}}}' in PAGES[0].compact()
    values = np.full_like(VALUES, 0.1)
    raw = encode(profile(KvAxisPolicyV1.RAW), values)[0].compact()
    assert '"encoding":{"raw_f32":{"values":[0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1]}}' in raw
