"""The committed results: of the stated shape, and in the documents as they are."""

import json
import re
from pathlib import Path

import pytest

import bench_docs
import make_docs
from benchmarks import result, verdict

ROOT = Path(__file__).parents[2]
RESULTS = json.loads(result.PATH.read_text(encoding="utf-8"))
MADE = {
    "command",
    "date",
    "processor",
    "processors",
    "system",
    "python",
    "packages",
    "zstd",
    "load",
}
CODEC = {"codec", "channels", "dtype", "threads", "bits", "cast_ns", "copy_ns"}
PEER = {"name", "kind", "role", "threads", "bits", "held_bits", "relative_mse", "note", "cast_ns"}


def ways(*members):
    return {f"{way}_{member}" for way in verdict.WAYS for member in members}


def test_every_part_is_there_and_says_how_it_was_made():
    """Four parts, each with its command, date, machine and versions."""
    assert RESULTS["schema"] == result.SCHEMA
    assert tuple(RESULTS)[1:] == result.PARTS
    for name in result.PARTS:
        assert set(RESULTS[name]["made"]) == MADE


def test_rows_of_codecs_have_their_members():
    """Every codec at each head_dim and dtype, with one thread and with two."""
    rows = RESULTS["codecs"]["rows"]
    least = ways("ns", "least_ns", "mb_s", "per_cast", "per_copy")
    for row in rows:
        hot = ways("hot_per_cast") if row["threads"] == 1 else set()
        assert set(row) == CODEC | least | hot
    kinds = {(row["codec"], row["channels"], row["dtype"], row["threads"]) for row in rows}
    assert len(kinds) == len(rows) == len({row["codec"] for row in rows}) * 3 * 3 * 2


def test_rows_of_peers_have_their_members():
    """Three kinds of row; what wins is what the rule gives for these rows."""
    for capture in RESULTS["peers"]["captures"]:
        for row in capture["rows"]:
            assert set(row) == PEER | ways("mb_s", "least_ns", "per_cast", "jobs")
        assert {row["kind"] for row in capture["rows"]} == {"kvq", "peer", "bound"}
        assert capture["violations"] == verdict.violations(capture["rows"])


@pytest.mark.parametrize("part", ["commands", "threads"])
def test_captures_of_commands_say_what_they_are(part):
    """Bytes and geometry stand beside the tables."""
    for capture in RESULTS[part]["captures"]:
        assert {"bytes", "layers", "heads", "channels"} < set(capture)


def test_results_name_no_folder_of_a_machine():
    """Commands and captures go by their names alone."""
    text = result.PATH.read_text(encoding="utf-8")
    assert re.search(r"[\" ]/\w", text) is None


@pytest.mark.parametrize("name", sorted(bench_docs.BLOCKS))
def test_documents_show_the_committed_results(name):
    """`make docs` would change no table of results."""
    page = "README.md" if name == "speed" else "docs/benchmarks.md"
    text = (ROOT / page).read_text(encoding="utf-8")
    (shown,) = (match for match in make_docs.BLOCK.finditer(text) if match[2] == name)
    assert shown[0] == f"{shown[1]}{bench_docs.BLOCKS[name]()}{shown[3]}"
