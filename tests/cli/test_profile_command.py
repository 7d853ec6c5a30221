"""kvq profile: list, show, check, digest, new, schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.captures import canonical_capture
from support.shell import done, error_line, kvq, refused

BUILTIN = ("int8", "lossless", "raw")
SCHEMA = Path(__file__).parents[2] / "formats" / "schemas" / "profile.schema.json"


def test_list():
    """Every built-in profile with a line of its own; --json has them whole."""
    lines = done("profile", "list").out.splitlines()
    names = [line.split()[0] for line in lines]
    assert set(BUILTIN) <= set(names)
    report = done("profile", "list", "--json").report
    assert [each["path"] for each in report["results"]] == names
    assert all(each["profile"]["schema"] == "kvq_profile_v1" for each in report["results"])


@pytest.mark.parametrize("name", BUILTIN)
def test_show_is_a_profile(name, tmp_path):
    """The normal form is a profile of the same digest, and its own normal form."""
    shown = done("profile", "show", name).out
    path = tmp_path / "shown.json"
    path.write_text(shown)
    assert done("profile", "show", path).out == shown
    digest = done("profile", "digest", name).out.split()[0]
    assert done("profile", "digest", path).out == f"{digest}  {path}\n"
    assert done("profile", "check", path).out == f"{path}: ok {digest}\n"


@pytest.mark.parametrize("name", BUILTIN)
def test_digest_is_the_container_s(name, tmp_path):
    """profile digest, inspect of the profile and inspect of a container agree."""
    path = tmp_path / "cache"
    path.write_bytes(canonical_capture())
    done("compress", path, "-p", name)
    (recorded,) = done("inspect", f"{path}.kvq", "--json").result["profiles"]
    assert done("profile", "digest", name).out == f"{recorded['digest']}  {name}\n"
    (tmp_path / "p.json").write_text(done("profile", "show", name).out)
    assert done("inspect", tmp_path / "p.json", "--json").result["digest"] == recorded["digest"]


@pytest.mark.parametrize(
    ("text", "code", "error_id", "pointer"),
    [
        ("", 3, "E401", ""),
        ("{", 3, "E401", ""),
        ("[]", 3, "E401", ""),
        ("{}", 3, "E401", ""),
        ('{"schema":"kvq_profile_v1","schema":"kvq_profile_v1"}', 3, "E401", "schema"),
        ('{"schema":"kvq_profile_v1","name":"x"}', 3, "E401", '"rules"'),
        ('{"schema":"kvq_profile_v1","name":"","rules":[]}', 3, "E401", "/name"),
        (
            '{"schema":"kvq_profile_v1","name":"x","rules":[{"codec":"int8","x":1}]}',
            3,
            "E401",
            "/x",
        ),
        (
            '{"schema":"kvq_profile_v1","name":"x","rules":[{"codec":{"name":"int8","axis":3}}]}',
            3,
            "E401",
            "/rules/0/codec/axis",
        ),
        (
            '{"schema":"kvq_profile_v1","name":"x","rules":[{"codec":"int3"}]}',
            4,
            "E503",
            "/rules/0",
        ),
        ('{"schema":"kvq_profile_v1","name":"x","rules":[],"page_tokens":NaN}', 3, "E401", ""),
    ],
)
def test_check_names_the_member(text, code, error_id, pointer, tmp_path):
    """A bad profile is one line with its file and the JSON pointer of the member."""
    path = tmp_path / "bad.json"
    path.write_text(text)
    refused(kvq("profile", "check", path), code, error_id, f"{path}: ", pointer)
    for command in ("show", "digest"):
        refused(kvq("profile", command, path), code, error_id)


def test_check_of_many(tmp_path):
    """The valid ones are told, the worst code is returned."""
    (tmp_path / "bad.json").write_text("{}")
    ran = kvq("profile", "check", "int8", tmp_path / "bad.json", "lossless", "nope")
    assert ran.code == 3
    assert [line.split(":")[0] for line in ran.out.splitlines()] == ["int8", "lossless"]
    assert ran.err.count("\n") == 2
    refused(kvq("profile", "show", tmp_path / "missing.json"), 6, "E601", "missing.json")


def test_new_is_a_profile_to_begin_with(tmp_path):
    """The printed profile parses, has the name, and the rules of the one it came from."""
    path = tmp_path / "mine.json"
    path.write_text(done("profile", "new", "mine").out)
    done("profile", "check", path)
    made = json.loads(path.read_text())
    assert (made["name"], made["description"]) == ("mine", "")
    assert made["rules"] == json.loads(done("profile", "show", "int8").out)["rules"]
    assert json.loads(done("profile", "new", "x", "--from", path).out)["rules"] == made["rules"]
    ran = kvq("profile", "new", "not a name!")
    assert (ran.code, error_line(ran)[0]) == (3, "E401")
    refused(kvq("profile", "new", "x", "--from", "nope"), 2, "E102")


def test_schema_is_the_published_one():
    """profile schema prints formats/schemas/profile.schema.json."""
    assert json.loads(done("profile", "schema").out) == json.loads(SCHEMA.read_text())
