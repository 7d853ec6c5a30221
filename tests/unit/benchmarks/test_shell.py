"""Timed shell lines: where they run, what they leave, what a failure does."""

import pytest

from benchmarks.shell import Command, Runs, run
from benchmarks.threads import variants


def test_a_line_runs_in_its_folder_and_is_timed(tmp_path):
    """Parts that run side by side are in the folder too; what a command writes is made anew."""
    runs = Runs()
    line = "test ! -e made && echo 1 > made & first=$!; echo 2 > other; wait $first"
    for _ in range(2):
        run(Command("both", line, ("made",)), tmp_path, runs)
    assert (tmp_path / "made").read_text() == "1\n"
    assert (tmp_path / "other").read_text() == "2\n"
    assert len(runs.wall) == len(runs.cpu) == 2


def test_a_line_that_fails_ends_the_benchmark(tmp_path):
    """A time of a failure is no result, in either of two processes."""
    for line in ("false", "false & first=$!; true || exit 1; wait $first"):
        with pytest.raises(SystemExit):
            run(Command("wrong", line), tmp_path, Runs())


def test_two_processes_have_outputs_of_their_own():
    """Side by side they write different files, each with one thread."""
    found = variants("compress", "int8")
    assert found["side"].writes == ("source.int8.1.kvq", "source.int8.2.kvq")
    assert found["side"].line.count("--threads 1") == 2
    assert "--threads 2" in found["t2"].line
