"""Many inputs in one call."""

from __future__ import annotations

import json

import pytest

from support.captures import canonical_capture
from support.shell import done, error_line, kvq, left_alone, process, refused


@pytest.fixture
def folder(tmp_path):
    """a and c are captures, b is not."""
    for name in "ac":
        (tmp_path / name).write_bytes(canonical_capture())
    (tmp_path / "b").write_bytes(b"not a tensor file at all")
    return tmp_path


def test_the_rest_is_done_and_the_worst_code_wins(folder):
    """One bad input is one line; the others are compressed; the largest exit code is returned."""
    ran = kvq("compress", "-q", folder / "a", folder / "missing", folder / "b", folder / "c")
    assert ran.code == 6
    assert [line.split(":")[1].strip() for line in ran.err.splitlines()] == [
        "error KVQ-E601",
        "error KVQ-E201",
    ]
    assert (folder / "a.kvq").exists()
    assert (folder / "c.kvq").exists()


def test_fail_fast(folder):
    """--fail-fast stops at the first input that fails."""
    ran = kvq("compress", "-q", "--fail-fast", folder / "a", folder / "b", folder / "c")
    assert (ran.code, error_line(ran)[0]) == (3, "E201")
    assert (folder / "a.kvq").exists()
    assert not (folder / "c.kvq").exists()


def test_broken_expectations_do_not_stop_the_rest(folder):
    """verify of three files, one of which is damaged and one not as expected."""
    done("compress", folder / "a", folder / "c")
    (folder / "a.kvq").write_bytes((folder / "a.kvq").read_bytes()[:-1])
    ran = kvq("verify", folder / "a.kvq", folder / "c.kvq", "--max-bytes", "10", "--json")
    assert ran.code == 3
    first, second = ran.report["results"]
    assert first["error"]["error_id"] == "E302"
    assert [each["error_id"] for each in second["broken"]] == ["E804"]
    assert ran.report["summary"] == {"inputs": 2, "failed": 2, "exit_code": 3}


def test_names_from_a_list(folder):
    """--files-from takes a name a line; with -0, names may hold line ends and spaces."""
    odd = folder / "two\nlines and a space"
    odd.write_bytes(canonical_capture())
    lines, zeros = folder / "lines", folder / "zeros"
    lines.write_text(f"{folder / 'a'}\n\n{folder / 'c'}\n")
    zeros.write_bytes(b"\0".join(bytes(path) for path in (odd, folder / "a")) + b"\0")
    assert len(done("inspect", "--files-from", lines, "--json").report["results"]) == 2
    report = done("inspect", "--files-from", zeros, "-0", "--json").report
    assert [each["path"] for each in report["results"]] == [str(odd), str(folder / "a")]
    ran = process("inspect", "--files-from", "-", "-0", "--json", stdin=zeros.read_bytes())
    assert json.loads(ran.out)["summary"]["inputs"] == 2


def test_where_outputs_go(folder):
    """-o DIR/ collects; one file for two inputs, colliding names and clashing streams are usage."""
    (folder / "out").mkdir()
    done("compress", folder / "a", folder / "c", "-o", f"{folder / 'out'}/")
    done("compress", folder / "a", folder / "c", "-o", folder / "out", "-f")
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.kvq", "c.kvq"]
    (folder / "out" / "a").write_bytes(canonical_capture())
    a, other = folder / "a", folder / "out" / "a"
    with left_alone(folder):
        refused(kvq("compress", a, other, "-o", folder / "out"), 2, "E101", "same name")
        refused(kvq("compress", a, other, "-o", folder / "x.kvq"), 2, "E101", "2 inputs")
        refused(kvq("compress", a, other, "-o", "-"), 2, "E101")
        refused(kvq("compress", "-", "-o", folder / "out"), 2, "E101", "standard input")
        refused(kvq("compress", "-", "-"), 2, "E101", "twice")
        refused(kvq("inspect", "-", "--files-from", "-"), 2, "E101", "twice")
        refused(kvq("inspect", "-0", a), 2, "E101", "--files-from")
        refused(kvq("compress"), 2, "E101", "no input")


def test_a_name_without_a_default_does_not_stop_the_rest(folder):
    """decompress needs .kvq or -o to know its output; the other inputs are still restored."""
    done("compress", folder / "a", folder / "c")
    (folder / "c.kvq").rename(folder / "c.bin")
    (folder / "out").mkdir()
    for target in ([], ["-o", folder / "out"]):
        (folder / "a").unlink(missing_ok=True)
        ran = kvq("decompress", "-q", folder / "c.bin", folder / "a.kvq", *target)
        assert (ran.code, error_line(ran)[0]) == (2, "E101")
        assert (folder / "out" / "a" if target else folder / "a").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["profile"],
        ["compress", "--nope", "x"],
        ["compress", "x", "--level"],
        ["compress", "x", "-T", "many"],
        ["compress", "x", "--meta", "model"],
        ["decompress", "x", "--layout", "flat"],
        ["verify", "x", "--min-ratio", "nan"],
    ],
)
def test_wrong_usage(arguments):
    """One line, E101, exit code 2."""
    refused(kvq(*arguments), 2, "E101")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-T", "-1"],
        ["--level", "0"],
        ["--level", "23"],
        ["--align", "100"],
        ["--align", "32"],
        ["--layout", "flat"],
        ["--meta", "colour=red"],
        ["-p", "lossless", "-p", "int8"],
    ],
)
def test_options_outside_their_range(arguments, folder):
    """Refused per input, and nothing is written."""
    with left_alone(folder):
        refused(kvq("compress", folder / "a", *arguments), 2, "E101")


def test_unknown_profiles_are_told_what_there_is(folder):
    """E102 names the built-in profiles and the nearest one."""
    refused(kvq("compress", folder / "a", "-p", "int9"), 2, "E102", "lossless", '"int8"?')


def test_every_command_has_two_examples():
    """--help of every command, subcommand and kvq itself shows two example lines."""
    commands = [[], ["profile"], *([each] for each in ("compress", "decompress", "inspect"))]
    commands += [["verify"], ["stats"]]
    commands += [["profile", each] for each in ("list", "show", "check", "digest", "new", "schema")]
    for command in commands:
        ran = done(*command, "--help")
        examples = ran.out[ran.out.index("Examples:") :].splitlines()[1:3]
        assert all(line.strip().startswith("kvq ") for line in examples), command
