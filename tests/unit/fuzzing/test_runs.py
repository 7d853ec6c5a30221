"""runs: the record of fuzzing, its totals and their table."""

from __future__ import annotations

import json

import fuzz_docs
from fuzzing import __main__ as command
from fuzzing import corpus, runs, vectors

MEMBERS = {
    "target", "seed", "executions", "seconds", "per_second", "edges", "features", "inputs",
    "outcomes", "crashes", "python", "atheris",
}  # fmt: skip
EVERY = 1 << 13  # executions after which outcomes are counted


def test_the_committed_totals_are_the_sums_of_the_committed_runs():
    """By target; no seed was run twice."""
    whole = json.loads(runs.PATH.read_text("utf-8"))
    assert whole["totals"] == runs.totals(whole["runs"])
    seeds = [(run["target"], run["seed"]) for run in whole["runs"]]
    assert len(seeds) == len(set(seeds))
    for target in corpus.TARGETS:
        mine = [run for run in whole["runs"] if run["target"] == target]
        assert sum(run["executions"] for run in mine) == whole["totals"][target]["executions"]


def test_each_run_has_its_members_and_none_that_tells_of_a_machine():
    """Outcomes are of all executions but the last few."""
    for run in runs.load():
        assert set(run) == MEMBERS
        assert run["target"] in corpus.TARGETS
        left = run["executions"] - sum(run["outcomes"].values())
        assert 0 <= left < 2 * EVERY
        assert run["per_second"] <= run["executions"] / max(run["seconds"] - 1, 1)
    assert "/" not in runs.PATH.read_text("utf-8")


def test_five_million_on_each_target():
    """And forty million in all."""
    totals = runs.totals(runs.load())
    assert all(totals[target]["executions"] >= 5_000_000 for target in corpus.TARGETS)
    assert sum(each["executions"] for each in totals.values()) >= 40_000_000


def test_runs_add_up(tmp_path):
    """A record is added to those that are there, and the totals follow."""
    path = tmp_path / "runs.json"
    run = {"target": "front", "seed": 1, "executions": 10, "seconds": 2, "crashes": 0}
    for more in (run, run | {"seed": 2, "crashes": 1}, run | {"target": "capture"}):
        runs.add(more, path)
    whole = json.loads(path.read_text("utf-8"))
    assert len(whole["runs"]) == 3
    assert whole["totals"] == {
        "capture": {"runs": 1, "executions": 10, "seconds": 2, "crashes": 0},
        "front": {"runs": 2, "executions": 20, "seconds": 4, "crashes": 1},
    }


def test_a_log_is_read(tmp_path, monkeypatch):
    """Executions, coverage and outcomes; a log without them gives zeros."""
    monkeypatch.setattr(command, "version", lambda _: "3")
    log, counts = tmp_path / "log", tmp_path / "counts"
    log.write_bytes(
        b"#1 INITED cov: 1 ft: 2 corp: 3/4b\n#9 NEW cov: 10 ft: 20 corp: 30/40Kb lim: 5\n"
        b"stat::number_of_executed_units: 900\n"
    )
    counts.write_text('{"parsed": 800}')
    run = command.record(log, counts, 4.5)
    assert (run["executions"], run["per_second"], run["seconds"]) == (900, 200, 4)
    assert (run["edges"], run["features"], run["inputs"]) == (10, 20, 30)
    assert run["outcomes"] == {"parsed": 800}
    log.write_bytes(b"no such module")
    assert command.record(log, tmp_path / "none", 1.0)["executions"] == 0


def test_the_table_has_every_target_and_the_total():
    """The documents take it as it is."""
    assert set(fuzz_docs.READS) == set(corpus.TARGETS)
    table = fuzz_docs.fuzzing_block()
    total = sum(each["executions"] for each in runs.totals(runs.load()).values())
    assert f"{total:,}" in table
    assert all(f"| `{target}` |" in table for target in corpus.TARGETS)


def test_patches_are_those_of_rfc_6902():
    """Members and elements are added, removed and replaced; the base stays as it was."""
    base = {"a": [1, 2], "b~/": {"c": 3}}
    patch = [
        {"op": "add", "path": "/a/1", "value": 9},
        {"op": "add", "path": "/a/-", "value": 8},
        {"op": "remove", "path": "/a/0"},
        {"op": "replace", "path": "/b~0~1/c", "value": 4},
        {"op": "add", "path": "/d", "value": None},
        {"op": "remove", "path": "/d"},
    ]
    assert vectors.patched(base, patch) == {"a": [9, 2, 8], "b~/": {"c": 4}}
    assert base == {"a": [1, 2], "b~/": {"c": 3}}
    assert vectors.patched(base, [{"op": "replace", "path": "", "value": 1}]) == 1
