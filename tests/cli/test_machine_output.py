"""JSON for programs, and text that no file can turn against a terminal."""

from __future__ import annotations

import json
import os
import re

import pytest

from support.captures import canonical_capture, kv_bits, safetensors_bytes
from support.shell import done, kvq

RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028]")
# A colour, a title, a bell, right to left, a line separator, Rich markup, half a surrogate.
NASTY = "a\x1b[31m\x1b]0;t\x07\u202e\u2028[red]b[/red]\x9b2J\r\n\tz"


@pytest.fixture
def nasty(tmp_path):
    """A capture whose file name, tensor names and metadata attack the terminal."""
    shape = (1, 1, 2, 5, 8)
    bits = kv_bits(shape).tobytes()
    tensors = {"key": ("F16", shape, bits), "value": ("F16", shape, bits)}
    tensors[f"other {NASTY}"] = ("U8", (3,), b"abc")
    path = tmp_path / f"x{NASTY.replace('/', '')}\udcff.safetensors"
    path.write_bytes(safetensors_bytes(tensors, {"model": f"m{NASTY}", NASTY: NASTY}))
    return path


def clean(text):
    """Whether lines hold nothing that a terminal obeys."""
    return RAW.search(text) is None


def test_nothing_from_a_file_reaches_the_terminal_raw(nasty, tmp_path):
    """Reports, tables and errors of every command escape names and metadata."""
    ran = done("compress", nasty, "-v", "-p", "int8")
    container = f"{nasty}.kvq"
    reports = (
        ["inspect", nasty, "--tensors"],
        ["inspect", container, "--tensors", "--pages"],
        ["inspect", container, "--sums"],
        ["stats", container, "--against", nasty, "-v"],
        ["verify", container],
    )
    errors = (
        ["compress", nasty],
        ["verify", nasty],
        ["verify", container, "--profile", NASTY],
        ["compress", nasty, "-f", "--layout", NASTY],
        ["compress", nasty, "-f", "--meta", f"{NASTY}=1"],
        [NASTY],
        ["inspect", tmp_path / NASTY],
    )
    for text in (ran.err, *(done(*command).out for command in reports)):
        assert clean(text), text
    for command in errors:
        error = kvq(*command).err
        assert clean(error), error
        assert error.count("\n") == 1


def test_markup_is_text(nasty):
    """Rich markup in a tensor name is printed, not obeyed."""
    done("compress", nasty)
    ran = done("inspect", f"{nasty}.kvq", "--tensors", "--color", "always")
    assert "[red]b[/red]" in ran.out
    assert "\x1b[31m" not in ran.out


def test_sums_of_odd_names(nasty, tmp_path, monkeypatch):
    """inspect --sums and verify --check agree on any name a file can have."""
    back = tmp_path / "back\\slash n"
    back.write_bytes(canonical_capture())
    done("compress", nasty, back)
    sums = done("inspect", "--sums", f"{nasty}.kvq", f"{back}.kvq").out
    (tmp_path / "SUMS").write_bytes(os.fsencode(sums))
    report = done("verify", "--check", tmp_path / "SUMS", "--json").report
    assert [each["path"] for each in report["results"]] == [f"{nasty}.kvq", f"{back}.kvq"]


@pytest.mark.parametrize("command", ["compress", "decompress", "inspect", "verify", "stats"])
def test_json_shape(command, tmp_path):
    """One object: schema, kvq_version, command, results with path, summary."""
    path = tmp_path / "cache"
    path.write_bytes(canonical_capture())
    done("compress", path)
    arguments = [command, path if command == "compress" else f"{path}.kvq", "--json"]
    arguments += ["-f"] if "compress" in command else []
    arguments += [tmp_path / "missing.kvq"]
    ran = kvq(*arguments)
    report = ran.report
    assert list(report) == ["schema", "kvq_version", "command", "results", "summary"]
    assert (report["schema"], report["command"]) == ("kvq_report_v1", command)
    assert report["summary"] == {"inputs": 2, "failed": 1, "exit_code": 6}
    good, bad = report["results"]
    assert good["path"] == str(arguments[1])
    assert set(bad) == {"path", "error"}
    assert set(bad["error"]) == {"error_id", "exit_code", "message"}
    assert ran.err.count("\n") == 1


def test_ndjson_is_a_line_an_input(tmp_path):
    """Each line is the result that --json lists, errors included."""
    path = tmp_path / "cache"
    path.write_bytes(canonical_capture())
    ran = kvq("inspect", path, tmp_path / "missing", path, "--ndjson")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    report = kvq("inspect", path, tmp_path / "missing", path, "--json").report
    assert lines == report["results"]


def test_json_is_ascii_and_exact(nasty):
    """Names in JSON are escaped by JSON alone, and come back as they are on disk."""
    ran = done("inspect", nasty, "--json", "--tensors")
    assert ran.out.isascii()
    assert clean(ran.out)
    assert ran.result["path"] == str(nasty)
    assert ran.result["metadata"][NASTY] == NASTY


def test_a_bug_is_one_line_and_exit_code_70(tmp_path, monkeypatch):
    """What kvq did not foresee is E999; KVQ_DEBUG=1 adds the traceback."""
    from kvq_cli import pipeline

    def broken(*_arguments, **_options):
        raise ZeroDivisionError("two\nlines")

    path = tmp_path / "cache"
    path.write_bytes(canonical_capture())
    monkeypatch.setattr(pipeline, "compress", broken)
    ran = kvq("compress", path)
    assert ran.code == 70
    assert "KVQ-E999" in ran.err
    assert ran.err.count("\n") == 1
    monkeypatch.setenv("KVQ_DEBUG", "1")
    assert "Traceback" in kvq("compress", path).err


def test_quiet_and_verbose(tmp_path):
    """-q says nothing but errors; -v adds the profile and the content root."""
    path = tmp_path / "cache"
    path.write_bytes(canonical_capture())
    quiet = done("compress", path, "-q")
    assert (quiet.out, quiet.err) == ("", "")
    assert "content_root blake3:" in done("compress", path, "-vf").err
    assert done("verify", f"{path}.kvq", "-q").out == ""
    assert "E601" in kvq("verify", tmp_path / "missing", "-q").err
