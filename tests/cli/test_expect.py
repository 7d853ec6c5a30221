"""--expect: a container of another model, tokenizer, geometry is not taken for the right one."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

import kvq_cli
from support.captures import canonical_capture, per_layer_capture
from support.shell import done, error_line, kvq, left_alone, process, refused

FACTS = {
    "model": "org/m",
    "model_revision": "r=1",
    "tokenizer": "t",
    "rope_theta": "10000.0",
    "engine": "é\u202e\n=",
}
HOLDS = [
    "model=org/m",
    "model_revision=r=1",
    "engine=" + FACTS["engine"],
    "layout=canonical",
    "layers=2",
    "batch=1",
    "kv_heads=2",
    "tokens=40",
    "head_dim=16",
    "dtype=F16",
    "key.dtype=f16",
    "value.head_dim=16",
]


def asked(*pairs):
    return [word for pair in pairs for word in ("--expect", pair)]


@pytest.fixture
def container(tmp_path):
    """A container that says a few things of itself, also hostile ones."""
    capture = tmp_path / "cache"
    capture.write_bytes(canonical_capture(tokens=40, channels=16, metadata=FACTS))
    done("compress", capture, "-p", "int8")
    capture.unlink()
    return tmp_path / "cache.kvq"


@pytest.mark.parametrize("quick", [[], ["--quick"]], ids=["whole", "quick"])
def test_what_holds_and_what_does_not(container, quick):
    """Exit code 1 and one line that names the first difference; 0 where all hold."""
    done("verify", container, *quick, *asked(*HOLDS))
    ran = kvq("verify", container, *quick, *asked("tokens=40", "model=org/x", "tokenizer=u"))
    words = ['expected model="org/x"', 'container says "org/m"', "also different: tokenizer"]
    refused(ran, 1, "E809", str(container), *words)
    ran = kvq("verify", container, *quick, *asked("tokenizer_revision=1"))
    refused(ran, 1, "E809", "tokenizer_revision", "does not say")


def test_where_layers_differ(tmp_path):
    """Different lengths of layers stand with commas, and one of them alone does not hold."""
    (tmp_path / "cache").write_bytes(per_layer_capture(tokens=(64, 24, 64)))
    done("compress", tmp_path / "cache")
    done("verify", tmp_path / "cache.kvq", *asked("tokens=64,24", "layers=3"))
    ran = kvq("verify", tmp_path / "cache.kvq", *asked("tokens=64"))
    refused(ran, 1, "E809", 'says "64,24"')


def test_machines_are_told(container):
    """JSON, JUnit and GitHub have the same line."""
    wrong = asked("engine=other")
    ran = kvq("verify", container, *wrong, "--json")
    (broken,) = ran.result["broken"]
    assert (ran.code, broken["error_id"]) == (1, "E809")
    assert broken["message"].isprintable()
    suite = ET.fromstring(kvq("verify", container, *wrong, "--format", "junit").out)  # noqa: S314 - our own
    assert suite[0][0].get("type") == "KVQ-E809"
    assert suite[0][0].get("message") == broken["message"]
    line = kvq("verify", container, *wrong, "--format", "github").out
    assert line == f"::error file={container},title=KVQ-E809::{broken['message']}\n"
    ran = kvq("verify", container, *wrong, "--status")
    assert (ran.code, ran.out, ran.err) == (1, "", "")


def test_other_expectations_are_told_too(container):
    """Identity is one line beside those of roots and sizes."""
    ran = kvq("verify", container, *asked("model=x"), "--max-bytes", 10)
    assert [line.split(":")[1] for line in ran.err.splitlines()] == [
        " error KVQ-E809",
        " error KVQ-E804",
    ]


@pytest.mark.parametrize(
    "pair", ["modle=x", "Model=x", "model", "model=", "=x", "", "\x1b[31m=x", "x" * 5000 + "=1"]
)
@pytest.mark.parametrize("command", ["verify", "decompress"])
def test_a_wrong_key_is_usage(command, pair, container):
    """Nobody's key, no key, no value: exit code 2, and nothing is looked at."""
    with left_alone(container.parent):
        refused(kvq(command, container, *asked(pair)), 2, "E101", "--expect")
    if pair.endswith("e=x"):
        refused(kvq(command, "missing.kvq", *asked("modle=x")), 2, "E101", "model", "kv_heads")


def test_a_key_is_named_once(container):
    """Two values of one key cannot both hold."""
    refused(kvq("verify", container, *asked("model=a", "model=b")), 2, "E101", "model", "twice")
    refused(
        kvq("compress", container, "--meta", "model=a", "--meta", "model=a"), 2, "E101", "twice"
    )


def test_decompress_refuses_before_it_writes(container, tmp_path):
    """The wrong cache is not restored, not even over what is there."""
    target = tmp_path / "cache"
    with left_alone(tmp_path):
        refused(kvq("decompress", container, *asked("model=org/x")), 1, "E809", "model")
        refused(kvq("decompress", container, *asked("dtype=f32"), "--tokens", "3"), 1, "E809")
    done("decompress", container, *asked(*HOLDS))
    before = target.read_bytes()
    with left_alone(tmp_path):
        refused(kvq("decompress", "-f", container, *asked("model=org/x")), 1, "E809", "model")
    assert target.read_bytes() == before
    ran = process("decompress", "-", *asked("model=x"), stdin=container.read_bytes())
    assert (ran.code, ran.out) == (1, b"")
    assert error_line(ran)[0] == "E809"
    ran = process("decompress", "-", *asked("model=org/m"), stdin=container.read_bytes())
    assert (ran.code, ran.out) == (0, before)


def test_many_inputs(container, tmp_path):
    """The right one among several is restored, the wrong one refused."""
    other = tmp_path / "other"
    other.write_bytes(canonical_capture(metadata={"model": "org/x"}))
    done("compress", other)
    other.unlink()
    ran = kvq("decompress", container, f"{other}.kvq", *asked("model=org/m"))
    assert ran.code == 1
    assert (tmp_path / "cache").exists()
    assert not other.exists()


def test_damage_comes_first(container):
    """A header that was changed is damage, whatever it says of itself."""
    data = container.read_bytes()
    container.write_bytes(data.replace(b'"org/m"', b'"org/x"', 1))
    with left_alone(container.parent):
        refused(kvq("decompress", container, *asked("model=org/x")), 3, "E303")
        refused(kvq("verify", container, "--quick", *asked("model=org/x")), 3, "E303")


def test_the_python_api(container, tmp_path):
    """verify tells, decompress and open_container refuse; a wrong key is usage everywhere."""
    wrong, unknown = {"model": "org/x"}, {"modle": "x"}
    told = kvq_cli.verify(container, expected=kvq_cli.Expected(identity=wrong)).broken
    assert [each["error_id"] for each in told] == ["E809"]
    calls = (
        lambda identity: kvq_cli.decompress(container, tmp_path / "out", identity=identity),
        lambda identity: kvq_cli.open_container(container, identity=identity),
    )
    for call in calls:
        for identity, error_id in ((wrong, "E809"), (unknown, "E101"), ({"model": ""}, "E809")):
            with pytest.raises(kvq_cli.KvqError) as refusal:
                call(identity)
            assert refusal.value.error_id == error_id
    with pytest.raises(kvq_cli.KvqError) as refusal:
        kvq_cli.verify(container, expected=kvq_cli.Expected(identity=unknown))
    assert refusal.value.error_id == "E101"
    with kvq_cli.open_container(container, identity={"model": "org/m"}) as cache:
        assert cache.layers == (0, 1)


def test_a_shape_that_differs_is_one_line(container):
    """--shape names the first field that differs, with both values, on the one line it takes."""
    shape = done("inspect", container, "--json").result["parts"][0]["key"]["shape"]
    path = container.with_name("shape.json")
    told = {"attention_kind": "gqa", "query_heads": 4, "rope_state": "post_rope"}
    path.write_text(json.dumps(shape | told | {"head_dim": 32}))
    ran = kvq("verify", container, "--shape", path)
    refused(ran, 1, "E802", "attention_kind: none, expected gqa", "head_dim: 16, expected 32")
