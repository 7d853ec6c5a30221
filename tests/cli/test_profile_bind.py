"""kvq profile bind, and the digests that kvq profile digest tells."""

from __future__ import annotations

import json

import pytest

from kvq_cli.contract.compat.vector_code import Quantizer
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from support.captures import canonical_capture, per_layer_capture
from support.shell import done, kvq, left_alone, refused

FACTS = {"attention_kind": "gqa", "query_heads": "4", "rope_state": "post"}
SMALL = ("--block", "4", "--size", "16")


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "cache"
    path.write_bytes(canonical_capture(tokens=40, channels=16, metadata=FACTS))
    return path


@pytest.mark.parametrize("role", ["key", "value"])
@pytest.mark.parametrize("axis", ["raw", "per_token", "per_channel", "role_aware_kivi_style"])
def test_what_is_bound_compresses(role, axis, capture, tmp_path):
    """The profile is for the capture, has the digests of its tables, and is recorded."""
    path = tmp_path / "p.json"
    words = ("--role", role, *SMALL, "--axis", axis, "--first-raw", 2, "--page-tokens", 16)
    ran = done("profile", "bind", capture, *words, "-o", path)
    assert (ran.out, ran.err) == ("", "")
    assert json.loads(done("profile", "bind", capture, *words).out) == json.loads(path.read_text())
    profile = KvCompressionProfileV1.from_json(json.loads(path.read_text()))
    made = Quantizer.build(FibQuantProfileV1.paper_default(16, 4, 16, 42))
    assert profile.fib_profile == made.profile
    assert profile.rotation_digest == made.codebook.rotation_digest
    assert profile.codebook_digest == made.codebook_digest
    assert (profile.role_policy, profile.axis_policy) == (role, axis)
    assert profile.protected_policy.first_tokens_raw == 2
    assert profile.page_geometry.tokens_per_page == 16
    done("compress", capture, "-p", path)
    done("verify", f"{capture}.kvq", "-p", path, "--against", capture)


def test_every_choice_is_in_the_profile(capture):
    """Seed, fallback, last tokens and name come from the command line; pages are no longer."""
    words = ("--seed", 7, "--fallback", "fail_closed", "--last-raw", 3, "--id", "run 7")
    found = json.loads(done("profile", "bind", capture, "--role", "key", *SMALL, *words).out)
    profile = KvCompressionProfileV1.from_json(found)
    assert profile.fib_profile.rotation_seed == 7
    assert profile.fallback_policy.mode == "fail_closed"
    assert profile.protected_policy.last_tokens_raw == 3
    assert profile.profile_id == "run 7"
    assert profile.page_geometry.tokens_per_page == 40
    assert profile.page_geometry.encoded_block_bytes == profile.page_geometry.raw_vector_bytes


def test_facts_are_told_as_to_compress(tmp_path):
    """What the capture lacks comes from --meta or --shape, or the call is refused."""
    path, shape = tmp_path / "cache", tmp_path / "shape.json"
    path.write_bytes(canonical_capture(tokens=10, channels=16))
    meta = [word for key, text in FACTS.items() for word in ("--meta", f"{key}={text}")]
    words = ("profile", "bind", path, "--role", "key", *SMALL)
    found = done(*words, *meta).out
    done("compress", path, *meta)
    (part,) = done("inspect", f"{path}.kvq", "--json").result["parts"]
    shape.write_text(json.dumps(part["key"]["shape"]))
    assert done(*words, "--shape", shape).out == found
    with left_alone(tmp_path):
        refused(kvq(*words), 2, "E101", "--meta")
        refused(kvq(*words, "--meta", "query_heads"), 2, "E101")


def test_layers_of_several_shapes_have_no_profile(tmp_path):
    """A KV profile is for one shape."""
    path = tmp_path / "cache"
    path.write_bytes(per_layer_capture(tokens=(5, 9)))
    meta = [word for key, text in FACTS.items() for word in ("--meta", f"{key}={text}")]
    refused(kvq("profile", "bind", path, "--role", "key", *meta), 2, "E101", "shape")


@pytest.mark.parametrize(
    "words",
    [
        ("--block", "3"),
        ("--block", "0"),
        ("--block", "16"),
        ("--block", "1"),
        ("--size", "1"),
        ("--size", "2000000"),
        ("--seed", "-1"),
        ("--page-tokens", "0"),
        ("--first-raw", "41"),
        ("--last-raw", "-1"),
        ("--axis", "row"),
        ("--fallback", "never"),
        ("--role", "query"),
        ("--meta", "attention_kind"),
    ],
)
def test_what_no_profile_can_be_is_wrong_usage(words, capture, tmp_path):
    """One line, exit 2, nothing written."""
    with left_alone(tmp_path):
        given = ("--role", "key", "--size", "16", *words, "-o", tmp_path / "p.json")
        refused(kvq("profile", "bind", capture, *given), 2, "E101")


def test_outputs_are_not_replaced(capture, tmp_path):
    """As everywhere: --force does it, and never the input."""
    path = tmp_path / "p.json"
    words = ("profile", "bind", capture, "--role", "key", *SMALL)
    path.write_text("mine")
    refused(kvq(*words, "-o", path), 5, "E103")
    done(*words, "-o", path, "--force")
    refused(kvq(*words, "-o", capture, "--force"), 5, "E104")


def test_all_digests_of_a_kv_profile(capture, tmp_path):
    """One a line, the one that containers record first."""
    path = tmp_path / "p.json"
    done("profile", "bind", capture, "--role", "value", *SMALL, "-o", path)
    value = json.loads(path.read_text())
    digest = KvCompressionProfileV1.from_json(value).digest()
    assert done("profile", "digest", path).out.splitlines() == [
        f"{digest}  {path}",
        f"{value['shape_digest']}  {path}: shape",
        f"{value['fib_profile_digest']}  {path}: vector profile",
        f"{value['rotation_digest']}  {path}: rotation",
        f"{value['codebook_digest']}  {path}: codebook",
    ]
    vectors = tmp_path / "vectors.json"
    vectors.write_text(json.dumps(value["fib_profile"]))
    assert done("profile", "digest", vectors, "--json").result["digests"] == {
        "rotation": value["rotation_digest"],
        "codebook": value["codebook_digest"],
    }
    assert done("profile", "digest", "int8", "--json").result["digests"] == {}
