"""What can be expected of a container, and what verify says when it does not hold."""

from __future__ import annotations

import json

import pytest

from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import KvAxisPolicyV1
from support.captures import canonical_capture, per_layer_capture
from support.shell import Ran, done, error_line, kvq, left_alone, process, refused

FACTS = {"attention_kind": "gqa", "query_heads": "4", "rope_state": "post"}
ZERO = "blake3:" + 64 * "0"


@pytest.fixture
def pair(tmp_path):
    """A capture with a known shape, and its int8 container."""
    capture = tmp_path / "cache"
    capture.write_bytes(canonical_capture(tokens=40, channels=16, metadata=FACTS))
    done("compress", capture, "-p", "int8")
    return capture, tmp_path / "cache.kvq"


def broken(ran: Ran, *error_ids: str) -> str:
    """Exit code 1 and one line for each of these expectations."""
    assert ran.code == 1, ran.err
    lines = ran.err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [f"error KVQ-{e}" for e in error_ids]
    assert not ran.out
    return ran.err


def found(container):
    return done("inspect", container, "--json").result


def shape_of(container, role="key"):
    return found(container)["parts"][0][role]["shape"]


def test_what_holds(pair):
    """Every expectation that is met, together: exit code 0 and one line."""
    capture, container = pair
    shape = container.with_name("shape.json")
    shape.write_text(json.dumps(shape_of(container)))
    roots = found(container)
    arguments = ["--profile", "int8", "--shape", shape, "--content-root", roots["content_root"]]
    arguments += ["--file-root", roots["file_root"], "--against", capture]
    ran = done("verify", container, *arguments, "--min-ratio", "1.0", "--max-bytes", "100000")
    assert ran.out == f"{container}: ok {roots['content_root']}\n"
    assert "stored digests hold" in done("verify", container, "--quick").out


def test_another_profile(pair):
    """A different profile is E801 and names the members that differ."""
    _, container = pair
    other = done("profile", "show", "int8").out.replace('"page_tokens": 256', '"page_tokens": 64')
    path = container.with_name("other.json")
    path.write_text(other)
    assert "/page_tokens" in broken(kvq("verify", container, "--profile", path), "E801")
    assert "/rules" in broken(kvq("verify", container, "-p", "lossless"), "E801")
    # Prose and storage change no packed byte and no digest.
    value = json.loads(done("profile", "show", "int8").out)
    path.write_text(json.dumps(value | {"description": "mine", "storage": {"level": 9}}))
    done("verify", container, "--profile", path)


def test_another_shape(pair):
    """A shape that differs is E802, and the fields are named with both values."""
    _, container = pair
    path = container.with_name("shape.json")
    path.write_text(json.dumps(shape_of(container) | {"tokens": 41}))
    assert "tokens: 40, expected 41" in broken(kvq("verify", container, "--shape", path), "E802")
    with left_alone(container.parent):
        capture = container.with_name("cache")
        refused(kvq("compress", capture, "-f", "--shape", path), 1, "E802", "tokens")
    path.write_text("{}")
    refused(kvq("verify", container, "--shape", path), 3, "E401", str(path))


def test_roots_and_sizes(pair):
    """Every broken expectation is told, not the first alone."""
    _, container = pair
    arguments = ["--content-root", ZERO, "--file-root", ZERO]
    arguments += ["--min-ratio", "99", "--max-bytes", "10"]
    ran = kvq("verify", container, *arguments)
    assert ZERO in broken(ran, "E803", "E803", "E804", "E804")
    # An empty CI variable must not pass.
    broken(kvq("verify", container, "--content-root", ""), "E803")
    broken(kvq("verify", container, "--quick", "--content-root", ZERO), "E803")


def test_digests_without_prefix_and_in_capitals(pair):
    """A root may be given as 64 hex digits in any case."""
    _, container = pair
    done("verify", container, "--content-root", found(container)["content_root"][7:].upper())


@pytest.mark.parametrize("profile", ["lossless", "int8"])
def test_against_a_capture_with_one_flipped_bit(profile, tmp_path):
    """The page that differs is named by role, layer, heads and tokens."""
    capture, other = tmp_path / "cache", tmp_path / "other"
    data = canonical_capture(tokens=600, channels=16)
    capture.write_bytes(data)
    done("compress", capture, "-p", profile)
    done("verify", f"{capture}.kvq", "--against", capture)
    changed = bytearray(data)
    # The last element of the last value row: layer 1, head 1, token 599.
    changed[-1] ^= 0x40
    other.write_bytes(changed)
    text = broken(kvq("verify", f"{capture}.kvq", "--against", other), "E805")
    assert "value, batch 0, layer 1, heads [0, 1], tokens 512:600" in text


def test_against_another_capture(tmp_path):
    """Another shape, more layers, another dtype, other metadata: each is E805."""
    capture, other = tmp_path / "cache", tmp_path / "other"
    capture.write_bytes(canonical_capture())
    done("compress", capture)
    for data in (
        canonical_capture(layers=3),
        canonical_capture(layers=1),
        canonical_capture(tokens=6),
        canonical_capture(heads=3),
        canonical_capture(dtype="BF16"),
        canonical_capture(metadata={"model": "another"}),
        canonical_capture(roles=["key"]),
        per_layer_capture(),
    ):
        other.write_bytes(data)
        ran = kvq("verify", f"{capture}.kvq", "--against", other)
        assert ran.code == 1
        assert {line.split(":")[1] for line in ran.err.splitlines()} == {" error KVQ-E805"}
    ran = kvq("verify", f"{capture}.kvq", "--quick", "--against", capture)
    refused(ran, 2, "E101", "--quick")


def test_sums(pair, monkeypatch):
    """inspect --sums and verify --check, with --quiet and --status, as sha256sum -c."""
    _, container = pair
    folder = container.parent
    monkeypatch.chdir(folder)
    (folder / "SUMS").write_text(done("inspect", "--sums", "cache.kvq").out)
    assert (folder / "SUMS").read_text() == f"{found(container)['content_root']}  cache.kvq\n"
    assert done("verify", "--check", "SUMS").out.startswith("cache.kvq: ok")
    assert done("verify", "--check", "SUMS", "--quiet").out == ""
    (folder / "BAD").write_text(f"{ZERO}  cache.kvq\n")
    broken(kvq("verify", "--check", "BAD", "--quiet"), "E803")
    ran = kvq("verify", "--check", "BAD", "--status")
    assert (ran.code, ran.out, ran.err) == (1, "", "")
    # A file on two lines must meet both, whichever comes last.
    for names in (["SUMS", "BAD"], ["BAD", "SUMS"]):
        ran = kvq("verify", "-q", "--check", names[0], "--check", names[1])
        assert (ran.code, error_line(ran)[0]) == (1, "E803")
    (folder / "GONE").write_text(f"{ZERO}  gone.kvq\n" + (folder / "SUMS").read_text())
    ran = kvq("verify", "--check", "GONE", "--status", "--fail-fast")
    assert (ran.code, ran.err) == (6, "")
    assert process("verify", "--check", "-", stdin=(folder / "SUMS").read_bytes()).code == 0


@pytest.mark.parametrize("text", ["", "not a sum\n", f"{ZERO} one-space\n", f"{ZERO[:-1]}  x\n"])
def test_sums_that_are_none(text, tmp_path):
    """A list without sums is a mistake, and not a success."""
    (tmp_path / "SUMS").write_text(text)
    refused(kvq("verify", "--check", tmp_path / "SUMS"), 2, "E101", "SUMS")
    refused(kvq("verify", "--check", tmp_path / "SUMS", "x.kvq"), 2, "E101")


def test_the_user_tells_what_the_capture_does_not(tmp_path):
    """--meta completes a shape; a contradiction is refused, and a wrong word is usage."""
    capture = tmp_path / "cache"
    capture.write_bytes(canonical_capture(metadata={"attention_kind": "gqa"}))
    meta = ["--meta", "query_heads=4", "--meta", "rope_state=post"]
    done("compress", capture, *meta)
    parts = found(f"{capture}.kvq")["parts"]
    assert parts[0]["key"]["shape_digest"].startswith("blake3:")
    with left_alone(tmp_path):
        refused(kvq("compress", capture, "-f", "--meta", "attention_kind=mha"), 1, "E402", "gqa")
        refused(kvq("compress", capture, "-f", "--meta", "query_heads=many"), 2, "E101")


def kv_profile(capture, **changes):
    """A fib_quant KV profile that stores keys raw, for the shape of `capture` with changes."""
    done("compress", capture, "-f")
    shape = KvTensorShapeV1.from_json(shape_of(f"{capture}.kvq") | changes)
    profile = KvCompressionProfileV1.from_parts(
        "run-7",
        shape,
        FibQuantProfileV1.paper_default(shape.head_dim, 4, 256, 42),
        codebook_digest=ZERO,
        rotation_digest=ZERO,
        axis_policy=KvAxisPolicyV1.RAW,
        page_geometry=KvPageGeometryV1.new(16, shape.head_dim, 1040),
    )
    return profile, shape


def test_a_kv_profile(tmp_path):
    """A fib_quant profile for the capture's shape is taken; the other role is lossless."""
    capture, path = tmp_path / "cache", tmp_path / "profile.json"
    capture.write_bytes(canonical_capture(tokens=40, channels=64, metadata=FACTS))
    profile, _ = kv_profile(capture)
    path.write_text(json.dumps(profile.to_json()))
    done("compress", capture, "-f", "-p", path)
    named = {each["roles"][0]: each for each in found(f"{capture}.kvq")["profiles"]}
    assert named["key"]["digest"] == profile.digest()
    assert named["value"]["profile"]["name"] == "lossless"
    done("verify", f"{capture}.kvq", "-p", path, "--against", capture)
    assert found(path)["digest"] == profile.digest()
    refused(kvq("compress", capture, "-f", "-p", path, "-p", path), 2, "E101", "same role")


def test_a_kv_profile_for_another_shape(tmp_path):
    """The refusal names both digests and the field that differs."""
    capture, path = tmp_path / "cache", tmp_path / "profile.json"
    capture.write_bytes(canonical_capture(tokens=40, channels=64, metadata=FACTS))
    profile, shape = kv_profile(capture, tokens=41)
    mine = found(f"{capture}.kvq")["parts"][0]["key"]["shape_digest"]
    path.write_text(json.dumps(profile.to_json()))
    with left_alone(tmp_path):
        ran = kvq("compress", capture, "-f", "-p", path)
        refused(ran, 1, "E402", shape.digest(), mine)
    capture.write_bytes(canonical_capture(tokens=40, channels=64))
    with left_alone(tmp_path):
        refused(kvq("compress", capture, "-f", "-p", path), 1, "E402", "attention_kind")


@pytest.mark.parametrize(
    ("member", "pointer"),
    [
        ({"schema": "kvq_profile_v2"}, "/schema"),
    ],
)
def test_profiles_that_ask_for_too_much(member, pointer, tmp_path):
    """A later schema: E403 and its pointer, nothing written."""
    capture, path = tmp_path / "cache", tmp_path / "profile.json"
    capture.write_bytes(canonical_capture())
    value = {"schema": "kvq_profile_v1", "name": "much", "rules": [{"codec": "int8"}]}
    path.write_text(json.dumps(value | member))
    with left_alone(tmp_path):
        refused(kvq("compress", capture, "-p", path), 4, "E403", pointer)


def test_a_bad_profile_is_named(pair):
    """Not the capture is at fault, but the profile: its name and the pointer are told."""
    capture, container = pair
    path = container.with_name("bad.json")
    for text, pointer in (
        ("{", ""),
        ('{"schema":"kvq_profile_v1","name":"x","rules":3}', "/rules"),
    ):
        path.write_text(text)
        for command in (["compress", "-f", capture], ["verify", container], ["stats", capture]):
            refused(kvq(*command, "-p", path), 3, "E401", f"{path}: {pointer}")
