"""Every known input of every fuzzing target, without atheris; what the corpus may be."""

from __future__ import annotations

import re
import time

import pytest

from fuzzing import corpus

every_target = pytest.mark.parametrize("target", corpus.TARGETS)
OUTCOME = re.compile(r"short|bound|(parsed, )?(parsed|E[2-5]\d\d)")
SECONDS = 5.0  # of this thread, for all targets


def test_every_input_ends_as_declared():
    """Seeds and lines are parsed or refused by a declared error, all together in five seconds."""
    began = time.thread_time()
    for target in corpus.TARGETS:
        run = corpus.module(target).run
        for origin, data in corpus.inputs(target):
            try:
                outcome = run(data)
            except BaseException as error:
                error.add_note(f"{target}, {origin}")
                raise
            assert OUTCOME.fullmatch(outcome), (target, origin, outcome)
    assert time.thread_time() - began < SECONDS


@every_target
def test_lines_are_few_and_each_there_once(target):
    """A corpus is text of at most 100,000 bytes; no line is a seed or stands there twice."""
    assert (corpus.TEXT / f"{target}.txt").stat().st_size <= corpus.MOST
    lines = [data for _, data in corpus.lines(target)]
    seeds = {data for _, data in corpus.module(target).seeds()}
    assert lines
    assert len(lines) == len(set(lines))
    assert seeds.isdisjoint(lines)
    assert all(
        origin == corpus.FOUND or origin.startswith(corpus.CRASH)
        for origin, _ in corpus.lines(target)
    )


def test_every_corpus_and_every_target_has_the_other():
    """No file of either kind stands alone."""
    targets = {path.stem for path in (corpus.TEXT.parent / "targets").glob("[!_]*.py")}
    assert targets == set(corpus.TARGETS)
    assert {path.stem for path in corpus.TEXT.iterdir()} == targets
