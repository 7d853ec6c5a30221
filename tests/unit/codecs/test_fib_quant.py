"""fib_quant: the reference's codes in planes, along both axes, and what tables must be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kvq_cli.codecs import page_of
from kvq_cli.codecs.fib_quant import FibQuant
from kvq_cli.codecs.registry import codec_from_json
from kvq_cli.contract.compat import coding
from kvq_cli.contract.compat.bitpack import pack_indices
from kvq_cli.contract.compat.vector_code import Quantizer
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.errors import CodecError, ProfileError
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import table_spec

MADE = Quantizer.build(FibQuantProfileV1.paper_default(16, 4, 32, 7))
ARRAYS = (MADE.rotation.matrix, MADE.codebook.codewords)
TABLES = {table_spec(array).digest: array for array in ARRAYS}
TOKEN = FibQuant(16, 4, 32, *TABLES, MADE.profile_digest)
CHANNEL = replace(TOKEN, axis="channel")


def page_with(heads, tokens, seed=0):
    values = np.random.default_rng(seed).standard_normal((heads, tokens, 16)).astype(np.float32)
    spec = PageSpec(heads, tokens, 16, DType.F32)
    return values, Page(spec, values.view(np.uint32))


def restored(codec, planes, spec, tables=TABLES):
    into = page_of(spec)
    codec.decode(planes, spec, into, Scratch(tables))
    return into.bits.view(np.float32)


def assert_codes(norms, indices, vectors):
    """Planes hold what the quantizer makes of the vectors."""
    codes = MADE.encode(np.ascontiguousarray(vectors.reshape(-1, 16)))
    assert np.array_equal(norms.view(np.uint16).reshape(-1), codes.norms)
    packed = pack_indices(codes.indices, 5)
    assert np.array_equal(indices.reshape(packed.shape), packed)
    return MADE.decode(codes.norms, codes.indices)


def test_tokens_have_the_codes_of_the_reference():
    """Every token of every head is a vector."""
    values, page = page_with(3, 21)
    planes = TOKEN.encode(page, Scratch(TABLES))
    expected = assert_codes(planes["norms"], planes["indices"], values)
    assert np.array_equal(restored(TOKEN, planes, page.spec), expected.reshape(values.shape))


def test_channels_have_the_codes_of_the_reference():
    """16 tokens of a channel are a vector; the five that are left are vectors by themselves."""
    values, page = page_with(2, 37)
    planes = CHANNEL.encode(page, Scratch(TABLES))
    assert planes["channel_norms"].shape == (2, 2, 16)
    turned = values[:, :32].reshape(2, 2, 16, 16).swapaxes(2, 3)
    whole = assert_codes(planes["channel_norms"], planes["channel_indices"], turned)
    rest = assert_codes(planes["norms"], planes["indices"], values[:, 32:])
    found = restored(CHANNEL, planes, page.spec)
    whole = whole.reshape(turned.shape).swapaxes(2, 3).reshape(2, 32, 16)
    assert np.array_equal(found[:, :32], whole)
    assert np.array_equal(found[:, 32:], rest.reshape(2, 5, 16))


def test_few_tokens_have_no_groups():
    """A page that is shorter than a vector has the planes of the axis "token"."""
    _, page = page_with(1, 15)
    assert CHANNEL.layout(page.spec) == TOKEN.layout(page.spec)
    assert [plane.axes for plane in CHANNEL.layout(replace(page.spec, tokens=17))] == [
        "HGD",
        "HGDB",
        "HR1",
        "HRB",
    ]
    assert len(CHANNEL.layout(replace(page.spec, tokens=32))) == 2


def test_vectors_of_zeros_are_restored_as_zeros():
    """Norm 0, indices 0, and no minus zero."""
    _, page = page_with(1, 3)
    page.bits[0, 1] = 1 << 31
    planes = TOKEN.encode(page, Scratch(TABLES))
    assert planes["norms"][0, 1, 0] == 0
    assert not planes["indices"][0, 1].any()
    assert not restored(TOKEN, planes, page.spec).view(np.uint32)[0, 1].any()


@pytest.mark.parametrize("channels", [8, 15, 32])
def test_a_rotation_is_for_one_number_of_channels(channels):
    """Other pages are refused before anything is read."""
    with pytest.raises(CodecError) as refusal:
        TOKEN.layout(PageSpec(1, 4, channels, DType.F16))
    assert refusal.value.error_id == "E501"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 2.5, -3.0])
@pytest.mark.parametrize("which", [0, 1])
def test_tables_that_nobody_makes_are_refused(which, number):
    """No table makes a decoder overflow."""
    _, page = page_with(1, 3)
    planes = TOKEN.encode(page, Scratch(TABLES))
    array = ARRAYS[which].copy()
    array[1, 1] = number
    tables = {**TABLES, list(TABLES)[which]: array}
    with pytest.raises(CodecError) as refusal:
        restored(TOKEN, planes, page.spec, tables)
    assert refusal.value.error_id == "E502"


def test_a_parameter_without_a_default_is_asked_for():
    """The codec is not had by its name alone."""
    with pytest.raises(ProfileError) as refusal:
        codec_from_json("fib_quant", {}, "/codec")
    assert (refusal.value.error_id, refusal.value.pointer) == ("E401", "/codec")


def test_sums_in_another_order_decide_nothing(monkeypatch):
    """Where the bound is so wide that every vector is summed in order, nothing changes."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((3000, 16)).astype(np.float32)
    vectors[::7] *= 2.0 ** rng.integers(-20, 10, 429)[:, None]
    codes = MADE.encode(vectors)
    decoded = MADE.decode(codes.norms, codes.indices)
    calls = []
    exact = coding.in_order
    monkeypatch.setattr(
        coding, "in_order", lambda *each: (calls.append(len(each[1])), exact(*each))[1]
    )
    MADE.decode(codes.norms, codes.indices)
    assert calls[0] < 60  # the bound is tight enough to be of use
    for reach in (1e-3, 1.0):
        monkeypatch.setattr(coding, "reach", lambda *_, reach=reach: reach)
        again = MADE.encode(vectors)
        assert np.array_equal(again.indices, codes.indices)
        found = MADE.decode(codes.norms, codes.indices)
        assert np.array_equal(found.view(np.uint32), decoded.view(np.uint32))
    assert calls[-1] == len(vectors)


def test_a_batch_of_no_vectors_has_no_codes():
    """Nothing in, nothing out."""
    codes = MADE.encode(np.empty((0, 16), np.float32))
    assert codes.indices.shape == (0, 4)
    assert MADE.decode(codes.norms, codes.indices).shape == (0, 16)
