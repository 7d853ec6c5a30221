"""The commands around a run: what is set up, what is written, how a run ends."""

from __future__ import annotations

import argparse
import sys

import pytest

from fuzzing import __main__ as command
from fuzzing import corpus, make_fuzz, runs


def test_an_unknown_target_is_refused(monkeypatch):
    """In one line, before anything is run."""
    monkeypatch.setattr("sys.argv", ["fuzzing", "nothing"])
    with pytest.raises(SystemExit, match="no target nothing"):
        command.main()


def test_without_atheris_one_line_says_so(monkeypatch):
    """And the exit code is not 0."""

    def missing(_):
        raise command.PackageNotFoundError

    monkeypatch.setattr("sys.argv", ["fuzzing", "front"])
    monkeypatch.setattr(command, "version", missing)
    with pytest.raises(SystemExit, match="atheris is not installed"):
        command.main()


@pytest.mark.parametrize(("fails", "told"), [("atheris", "does not install for"), ("edit", "kvq")])
def test_what_does_not_install_is_told_in_one_line(monkeypatch, tmp_path, fails, told):
    """Atheris has no wheel for every Python; kvq may need what is not there."""
    monkeypatch.setattr("sys.argv", ["make_fuzz", str(tmp_path)])
    monkeypatch.setattr(make_fuzz.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(make_fuzz, "install", lambda _, *what: int(fails in what[0]))
    with pytest.raises(SystemExit, match=told) as stopped:
        make_fuzz.main()
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize(("code", "crashes"), [(0, 0), (command.INTERRUPTED, 0), (77, 1), (1, 1)])
def test_a_run_that_ends_otherwise_is_a_crash(monkeypatch, tmp_path, code, crashes):
    """Done, or interrupted, is none; the run is recorded in any case, under its seed."""
    log = "print('stat::number_of_executed_units: 900', flush=True);raise SystemExit({})"
    words = [sys.executable, "-c", log.format(code)]
    monkeypatch.setattr(corpus, "FILES", tmp_path)
    monkeypatch.setattr(corpus, "command", lambda *_: words)
    monkeypatch.setattr(command, "version", lambda _: "3")
    found = []
    monkeypatch.setattr(runs, "add", found.append)
    options = argparse.Namespace(seed=7, runs=None, seconds=None)
    run = command.fuzz("layout_map", options)
    assert found == [run]
    assert (run["seed"], run["executions"], run["crashes"]) == (7, 900, crashes)
    assert len(list((tmp_path / "layout_map").iterdir())) >= len(corpus.lines("layout_map"))


def test_a_text_file_leaves_out_what_does_not_fit(monkeypatch, tmp_path):
    """Lines are written in order up to the limit, and read again as they were."""
    monkeypatch.setattr(corpus, "TEXT", tmp_path / "corpus")
    monkeypatch.setattr(corpus, "MOST", 60)
    inputs = [("crash: was wrong", b"\0\xff"), ("found", b"abc"), ("found", b"x" * 99)]
    assert corpus.write("front", inputs) == 2
    assert corpus.lines("front") == inputs[:2]
    assert corpus.lines("chunks") == []
