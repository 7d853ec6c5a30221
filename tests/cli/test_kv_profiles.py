"""compress with KV profiles of fib_quant: the reference's values out of a kvq container."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reference.reader import read

from kvq_cli.contract.compat.vector_code import Quantizer
from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.policies import KvFallbackPolicyV1, KvProtectedPolicyV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import KvAxisPolicyV1, KvFallbackModeV1, LloydMode
from support.captures import safetensors_bytes
from support.shell import done, kvq, left_alone, process, refused

FOLDER = Path(__file__).parents[2] / "formats" / "vectors" / "contract"
FIXTURES = json.loads((FOLDER / "fibquant_codec.json").read_text())["kv_tensors"]
FACTS = {"attention_kind": "gqa", "query_heads": "4", "rope_state": "post"}
ZERO = "blake3:" + "0" * 64
MADE = Quantizer.build(FibQuantProfileV1.paper_default(16, 4, 32, 7))


def facts_of(shape):
    rope = {"rope_state": shape["rope_state"].split("_")[0]} if shape["role"] == "key" else {}
    return {
        "attention_kind": shape["attention_kind"],
        "query_heads": str(shape["query_heads"]),
        **rope,
    }


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda one: one["name"])
def test_the_values_of_the_reference(fixture, tmp_path):
    """A capture of a fixture's values, compressed as its profile says, has its decoded values."""
    shape, profile = json.loads(fixture["shape"]), json.loads(fixture["profile"])
    axes = ["batch", "layers", "kv_heads", "tokens", "head_dim"]
    lengths = tuple(shape[axis] for axis in axes)
    values = bytes.fromhex(fixture["values_f32"])
    capture, path = tmp_path / "cache", tmp_path / "profile.json"
    tensors = dict.fromkeys(("key", "value"), ("F32", lengths, values))
    capture.write_bytes(safetensors_bytes(tensors, facts_of(shape)))
    path.write_text(fixture["profile"])
    done("compress", capture, "-p", path)
    report = done("inspect", f"{capture}.kvq", "--json").result
    recorded = next(each for each in report["profiles"] if shape["role"] in each["roles"])
    assert recorded["digest"] == fixture["profile_digest"]
    assert recorded["profile"] == profile
    assert len(report["tables"]) == 2
    done("decompress", f"{capture}.kvq", "-o", tmp_path / "back")
    container = read(Path(f"{capture}.kvq"))
    assert (tmp_path / "back").read_bytes() == container.source()
    assert container.named()[shape["role"]].hex() == fixture["decoded_f32"]
    done("verify", f"{capture}.kvq", "--against", capture, "-p", path)


def capture_of(path, tokens=40, dtype="F16"):
    rng = np.random.default_rng(tokens)
    values = rng.standard_normal((1, 2, 2, tokens, 16)).astype(np.float16)
    tensors = {role: (dtype, values.shape, values.tobytes()) for role in ("key", "value")}
    path.write_bytes(safetensors_bytes(tensors, FACTS))
    return values


def bound(capture, role, policy, quantizer=MADE, tokens=16, **changes):
    done("compress", capture, "-f")
    (part,) = done("inspect", f"{capture}.kvq", "--json").result["parts"]
    profile = KvCompressionProfileV1.from_parts(
        "run-7",
        KvTensorShapeV1.from_json(part[role]["shape"]),
        quantizer.profile,
        codebook_digest=quantizer.codebook_digest,
        rotation_digest=quantizer.codebook.rotation_digest,
        axis_policy=policy,
        page_geometry=KvPageGeometryV1.new(tokens, 16, 64),
    )
    path = capture.with_name(f"{role}.json")
    path.write_text(json.dumps(replace(profile, **changes).to_json()))
    return path


@pytest.mark.parametrize("policy", KvAxisPolicyV1)
def test_every_axis_policy(policy, tmp_path):
    """Both roles, each by its own profile; what is coded is smaller, and near what it was."""
    capture = tmp_path / "cache"
    values = capture_of(capture).astype(np.float64)
    profiles = [bound(capture, role, policy) for role in ("key", "value")]
    done("compress", capture, "-f", "-p", profiles[0], "-p", profiles[1])
    report = done("stats", f"{capture}.kvq", "--against", capture, "--json").result
    planes = {each["name"] for each in report["planes"]}
    channels = {"fib_quant.channel_norms", "fib_quant.channel_indices"}
    if policy is KvAxisPolicyV1.RAW:
        assert planes == {"raw.bits"}
        assert "tables" not in report["parts"]
        return
    assert bool(planes & channels) == (policy is not KvAxisPolicyV1.PER_TOKEN)
    assert sum(report["parts"].values()) == report["file_bytes"]
    assert report["parts"]["tables"] > 100
    whole = [row["relative_mse"] for row in report["errors"] if row["layer"] is None]
    assert all(0.01 < error < 0.4 for error in whole)
    container = read(Path(f"{capture}.kvq"))
    assert len(container.header.content["tables"]) == 2
    for role in ("key", "value"):
        found = np.frombuffer(container.named()[role], "<f2").reshape(values.shape)
        assert np.abs(found - values).max() < 4


def test_protection_and_fallback(tmp_path):
    """Protected tokens are raw; a head that cannot be coded stays raw, or fails closed."""
    capture = tmp_path / "cache"
    values = capture_of(capture)
    values[0, 1, 1, 20] = 60000
    tensors = {role: ("F16", values.shape, values.tobytes()) for role in ("key", "value")}
    capture.write_bytes(safetensors_bytes(tensors, FACTS))
    policy = KvProtectedPolicyV1(first_tokens_raw=2)
    path = bound(capture, "key", KvAxisPolicyV1.PER_TOKEN, protected_policy=policy)
    report = done("compress", capture, "-f", "-p", path, "--json").result
    assert report["raw_pages"] == {"protected": 2, "unsupported": 1}
    closed = KvFallbackPolicyV1(mode=KvFallbackModeV1.FAIL_CLOSED)
    path = bound(capture, "key", KvAxisPolicyV1.PER_TOKEN, fallback_policy=closed)
    with left_alone(tmp_path):
        refused(kvq("compress", capture, "-f", "-p", path), 1, "E501", "norm", "head")


def test_the_field_set_of_twenty(tmp_path):
    """lloyd_mode is kept, and has digests of its own."""
    capture = tmp_path / "cache"
    capture_of(capture)
    twenty = Quantizer.build(FibQuantProfileV1.paper_default(16, 4, 32, 7, LloydMode.REFINE))
    path = bound(capture, "value", KvAxisPolicyV1.PER_TOKEN, twenty)
    done("compress", capture, "-f", "-p", path)
    (*_, recorded) = done("inspect", f"{capture}.kvq", "--json").result["profiles"]
    assert recorded["profile"]["fib_profile"]["lloyd_mode"] == "refine"
    done("verify", f"{capture}.kvq", "-p", path)
    skipped = replace(twenty.profile, lloyd_mode=LloydMode.SKIP)
    changes = {"fib_profile": skipped, "fib_profile_digest": skipped.digest()}
    path = bound(capture, "value", KvAxisPolicyV1.PER_TOKEN, twenty, **changes)
    refused(kvq("compress", capture, "-f", "-p", path), 4, "E403", "lloyd_mode")


@pytest.mark.parametrize(
    "name", ["shape_digest", "fib_profile_digest", "rotation_digest", "codebook_digest"]
)
def test_a_digest_that_is_not_the_profile_s(name, tmp_path):
    """Each is told with both values, and nothing is written."""
    capture = tmp_path / "cache"
    capture_of(capture)
    path = bound(capture, "key", KvAxisPolicyV1.PER_TOKEN)
    value = json.loads(path.read_text())
    good, value[name] = value[name], ZERO
    path.write_text(json.dumps(value))
    with left_alone(tmp_path):
        refused(kvq("compress", capture, "-f", "-p", path), 1, "E402", name, good, ZERO)


def test_tables_are_needed_for_the_codec(tmp_path):
    """A kvq profile can name the codec, but nobody makes its tables."""
    capture, path = tmp_path / "cache", tmp_path / "profile.json"
    capture_of(capture)
    codec = {"name": "fib_quant", "dim": 16, "block": 4, "size": 32, "profile": ZERO}
    rules = [{"codec": {**codec, "rotation": ZERO, "codebook": "blake3:" + "1" * 64}}]
    profile = {"schema": "kvq_profile_v1", "name": "x", "rules": rules}
    path.write_text(json.dumps(profile))
    refused(kvq("compress", capture, "-p", path), 4, "E403", "tables")


def test_slices_and_pipes(tmp_path):
    """What is read in part, or from a pipe, is what the whole has."""
    capture = tmp_path / "cache"
    values = capture_of(capture)
    paths = [bound(capture, role, KvAxisPolicyV1.PER_CHANNEL) for role in ("key", "value")]
    done("compress", capture, "-f", "-p", paths[0], "-p", paths[1])
    box = Path(f"{capture}.kvq")
    whole = np.frombuffer(read(box).named()["key"], "<f2").reshape(values.shape)
    done("decompress", box, "-o", tmp_path / "part", "--tokens", "5:20", "--heads", "1")
    done("decompress", box, "-o", tmp_path / "all")
    piped = process("decompress", "-", stdin=box.read_bytes())
    assert piped.out == (tmp_path / "all").read_bytes()
    data = (tmp_path / "part").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    part = np.frombuffer(data[start:], "<f2").reshape(2, 1, 2, 1, 15, 16)
    assert np.array_equal(part[0], whole[:, :, 1:2, 5:20])
