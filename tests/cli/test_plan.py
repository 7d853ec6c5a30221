"""stats --plan: a table from numbers alone, and what does not go together."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from kvq_cli.profile import builtin_names
from kvq_cli.steps.geometry import MODELS
from support.captures import canonical_capture
from support.shell import done, kvq, left_alone, process, refused

LLAMA = ("stats", "--plan", "--model", "llama-3.1-8b", "--tokens", 100000)
SMALL = ("--layers", 4, "--kv-heads", 3, "--tokens", 96, "--head-dim", 64)
CHOSEN = ("-p", "int8", "-p", "kivi-2bit")


def rows_of(text):
    """The cells of lines of a table, which two spaces part."""
    return [re.split(r"  +", line) for line in text.splitlines()]


def test_a_table(tmp_path, monkeypatch):
    """A row a profile, in their order; it says that nothing was measured, and touches no file."""
    monkeypatch.chdir(tmp_path)
    with left_alone(tmp_path):
        ran = done(*LLAMA, *CHOSEN)
    first, second, *table = ran.out.splitlines()
    assert first == (
        "computed, not measured: llama-3.1-8b, 32 layers, 8 kv heads, 100000 tokens, head_dim 128, "
        "batch 1, bf16"
    )
    assert second.startswith("12.2 GiB of tensors, 24.4 GiB as f32;")
    header, *rows = rows_of("\n".join(table))
    assert header == ["profile", "packed", "container", "ratio vs source bf16", "bits/element"]
    assert [row[0] for row in rows] == ["int8", "kivi-2bit"]
    assert all(len(row) == len(header) for row in rows)
    assert ran.err == ""


def test_every_built_in_profile():
    """Without a profile there is a row for each of them, and a note where one warns."""
    out = done(*LLAMA).out
    rows = rows_of(out)
    assert [row[0] for row in rows[3 : 3 + len(builtin_names())]] == list(builtin_names())
    assert "note: int4-g64: keys in int4 groups along tokens" in out


def test_verbose_tells_layers():
    """Layers of a role that take the same are one row."""
    rows = rows_of(done("stats", "--plan", *SMALL, "-v", "-p", "turboquant-plus", "-p", "raw").out)
    assert rows[5][1:4] == ["role", "layers", "codecs"]
    told = [row[:4] for row in rows[6:]]
    assert told == [
        ["turboquant-plus", "key", "0:4", "turboquant_prod"],
        ["turboquant-plus", "value", "0:4", "turboquant_mse"],
        ["raw", "key", "0:4", "raw"],
        ["raw", "value", "0:4", "raw"],
    ]
    six = ("--layers", 6)
    rows = rows_of(done("stats", "--plan", *SMALL, *six, "-v", "-p", "turboquant-boundary").out)
    assert [row[2] for row in rows[5:]] == ["0:2,4:6", "2:4", "0:6"]


def test_json_and_lines():
    """--ndjson has the results of --json; numbers come before the model's."""
    report = done(*LLAMA, *CHOSEN, "--json").report
    assert (report["command"], report["summary"]["inputs"]) == ("stats", 2)
    lines = done(*LLAMA, *CHOSEN, "--ndjson").out.splitlines()
    assert [json.loads(line) for line in lines] == report["results"]
    for each in report["results"]:
        assert each["computed"] is True
        assert each["source_bytes"] == 2 * 2 * 32 * 8 * 100000 * 128
        assert each["float32_bytes"] == 2 * each["source_bytes"]
        assert each["geometry"]["model"] == "llama-3.1-8b"
        assert len(each["layers"]) == 2 * 32
    changed = (*LLAMA, "-p", "raw", "--dtype", "f32", "--layers", 2, "--batch", 3, "--json")
    assert done(*changed).result["geometry"] == {
        "model": "llama-3.1-8b",
        "layers": 2,
        "kv_heads": 8,
        "tokens": 100000,
        "head_dim": 128,
        "batch": 3,
        "dtype": "f32",
    }


def test_csv():
    """One header; for each profile the whole, then every role and layer."""
    ran = done("stats", "--plan", *SMALL, *CHOSEN, "--csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    results = done("stats", "--plan", *SMALL, *CHOSEN, "--json").report["results"]
    assert ran.out.count("container_bytes") == 1
    assert len(rows) == 2 * (1 + 2 * 4)
    for result in results:
        whole, *layers = [row for row in rows if row["path"] == result["path"]]
        assert [whole[name] for name in ("role", "layer", "codecs")] == ["", "", ""]
        for name in ("source_bytes", "float32_bytes", "packed_bytes", "container_bytes"):
            assert int(whole[name]) == result[name]
        for row, told in zip(layers, result["layers"], strict=True):
            assert (row["role"], int(row["layer"])) == (told["role"], told["layer"])
            assert row["codecs"] == "+".join(told["codecs"])
            assert int(row["packed_bytes"]) == told["packed"]
            assert row["container_bytes"] == row["ratio"] == ""
    assert done("stats", "--plan", *SMALL, "-p", "raw", "--csv", "--quiet").out == ""


def test_it_agrees_with_a_capture(tmp_path):
    """What --plan says of a raw container is what stats measures."""
    path = tmp_path / "cache"
    path.write_bytes(canonical_capture(layers=4, heads=3, tokens=96, channels=64))
    measured = done("stats", path, "-p", "raw", "--json").result
    plan = done("stats", "--plan", *SMALL, "-p", "raw", "--json").result
    assert plan["packed_bytes"] == measured["packed_bytes"] == measured["stored_bytes"]
    assert plan["container_bytes"] == pytest.approx(measured["file_bytes"], rel=0.01)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--plan",), "--layers, --kv-heads, --head-dim, --tokens"),
        (("--plan", "--model", "qwen3-8b"), "--tokens"),
        (("--plan", *SMALL[:6]), "--head-dim"),
        (("--plan", *SMALL, "cache"), "an input"),
        (("--plan", *SMALL, "-"), "an input"),
        (("--plan", *SMALL, "--files-from", "names"), "--files-from"),
        (("--plan", *SMALL, "-0"), "--null"),
        (("--plan", *SMALL, "--against", "cache"), "--against"),
        (("cache", "--tokens", 0), "--tokens goes with --plan"),
        (("cache", "--kv-heads", 5), "--kv-heads goes with --plan"),
        (("cache", "--model", "qwen3-8b"), "--model goes with --plan"),
        (("cache", "--dtype", "f16"), "--dtype goes with --plan"),
        (("--batch", 1), "--batch goes with --plan"),
        (("--plan", *SMALL, "--layers", 0), "layers 0"),
        (("--plan", *SMALL, "--tokens", -1), "tokens -1"),
        (("--plan", *SMALL, "--tokens", 1 << 41), "tokens 2199023255552"),
        (("--plan", *SMALL, "--batch", 0), "batch 0"),
        (("--plan", *SMALL, "--head-dim", "x"), "--head-dim"),
        (("--plan", *SMALL, "--head-dim", "9" * 5000), "--head-dim"),
        (("--plan", *SMALL, "--dtype", "f8"), "--dtype"),
        (("--plan", *SMALL, "--model", "llama3.1-8b"), 'did you mean "llama-3.1-8b"?'),
        (("--plan", *SMALL, "--model", "\x1b[31m\u202e\n"), "available: gemma-7b"),
    ],
)
def test_what_does_not_go_together(words, named, tmp_path, monkeypatch):
    """One line, E101, exit code 2; nothing on standard output."""
    monkeypatch.chdir(tmp_path)
    ran = kvq("stats", *words)
    refused(ran, 2, "E101", named)
    assert ran.out == ""
    assert ran.err.isprintable() or ran.err.rstrip("\n").isprintable()


def test_a_profile_that_fails_does_not_stop_the_rest():
    """Each failure is its own line; the table has the others; --fail-fast stops."""
    chosen = ("-p", "nosuch", "-p", "fibquant-2bit", "-p", "raw")
    ran = kvq("stats", "--plan", *SMALL, "--head-dim", 257, *chosen)
    assert ran.code == 2
    first, second = ran.err.splitlines()
    assert first.startswith("kvq: error KVQ-E102: nosuch: ")
    assert second == (
        "kvq: error KVQ-E101: fibquant-2bit: head_dim 257 does not fit: fibquant: 257 channels, at "
        "most 256 can be rotated"
    )
    assert rows_of(ran.out)[-1][0] == "raw"
    stopped = kvq("stats", "--plan", *SMALL, *chosen, "--fail-fast")
    assert (stopped.out, stopped.err.count("\n")) == ("", 1)


def test_models_are_in_the_help():
    """--help lists every model and an example of --plan, and needs no NumPy."""
    words = done("stats", "--help").out.split()
    assert all(f"{name}," in words or f"{name}." in words for name in MODELS)
    assert "--plan" in words


def test_a_large_cache_in_a_process():
    """80 layers of 100,000 tokens by every profile; standard input is left alone."""
    ran = process("stats", "--plan", "--model", "llama-3.1-70b", "--tokens", 100000, "--ndjson")
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) == len(builtin_names())
