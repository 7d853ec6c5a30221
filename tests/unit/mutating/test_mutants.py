"""mutating: the faults that are made, which of them tests notice, and what is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mutating import results
from mutating.mutants import compiled, mutants_of

ROOT = Path(__file__).parents[3]


def made(source: str) -> dict[str, set[str]]:
    """What becomes of the statements of a source, by kind."""
    found: dict[str, set[str]] = {}
    for mutant in mutants_of(source):
        found.setdefault(mutant.kind, set()).add(mutant.now)
        compiled(mutant, "a")
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", {"compare": {"x = a <= b", "x = a >= b"}}),
        ("x = a < b >= c", {"compare": {"x = a <= b >= c", "x = a >= b >= c", "x = a < b > c",
                                        "x = a < b < c"}}),
        ("x = a is b", {"compare": {"x = a is not b"}}),
        ("x = a not in b", {"compare": {"x = a in b"}}),
        ("x = a + b", {"arithmetic": {"x = a - b"}}),
        ("x = -a", {"arithmetic": {"x = a"}}),
        ("x = a << b", {"arithmetic": {"x = a >> b"}}),
        ("x += y", {"arithmetic": {"x -= y"}, "statement": {"pass"}}),
        ("x = a and b", {"boolean": {"x = a or b", "x = a", "x = b"}}),
        ("x = a or b or c", {"boolean": {"x = a and b and c", "x = a or b", "x = a or c",
                                         "x = b or c"}}),
        ("x = not a", {"boolean": {"x = a"}}),
        ("if a:\n    x = y", {"boolean": {"if not a:"}}),
        ("if not a:\n    x = y", {"boolean": {"if a:"}}),
        ("x = [a for a in b if a]", {"boolean": {"x = [a for a in b if not a]"}}),
        ("x = 5", {"number": {"x = 6", "x = 4"}}),
        ("x = True", {"number": {"x = False"}}),
        ("x = 'key'", {"word": {"x = 'keyX'"}}),
        ("x = b''", {"word": {"x = b'X'"}}),
        ("x = 'E304'", {"error": {"x = 'E302'"}}),
        ("x = 'E201'", {"error": {"x = 'E304'"}}),
        ("x = min(a)", {"call": {"x = max(a)"}}),
        ("x = any(a)", {"call": {"x = all(a)"}}),
        ("def f():\n    return a", {"return": {"return None"}}),
        ("def f():\n    return", {"statement": {"pass"}}),
        ("f(x)", {"statement": {"pass"}}),
        ("raise f(x)", {"statement": {"pass"}}),
        ("x.y = z", {"statement": {"pass"}}),
        ("for x in y:\n    break", {"loop": {"continue"}}),
        # what stays
        ("x = 'text for people'", {}),
        ("x = f'{a + 1}'", {}),
        ("fault = 'text'", {}),
        ("def _kind(x):\n    return 1", {}),
        ("from a import b", {}),
        ('"""Docstring."""', {}),
        ("assert a < b", {}),
        ("x: Final[int]", {}),
        ("X: TypeAlias = dict[int, int]", {}),
        ("X = TypeVar('X')", {}),
        ("@f(1)\ndef g(x: int = y) -> None:\n    pass", {}),
    ],
)  # fmt: skip
def test_faults(source, expected):
    """Each kind makes these, and no other."""
    assert made(source) == expected


def test_where_a_fault_is():
    """Its function, lines, and whose code changes."""
    source = (
        "class A:\n    def f(self, x=1):\n        if (x\n                < y):\n            pass\n"
    )
    default, less, _ = mutants_of(source)[0], *mutants_of(source)[-2:]
    assert (default.where, default.function) == ("A", None)
    assert (less.where, less.function, less.lines) == ("A.f", ("A.f", 2), (3, 4))
    assert (less.was, less.now) == ("if x < y:", "if x <= y:")


def test_alike_are_one():
    """Faults of one line that read the same are counted once."""
    assert len({(each.key, each.lines) for each in mutants_of("x = a + a + 1 + 1")}) == len(
        mutants_of("x = a + a + 1 + 1")
    )


def test_chosen_mutants_are_noticed():
    """One of every kind, over most modules; and one that nobody can tell survives."""
    done = subprocess.run(
        [sys.executable, "-m", "mutating", "--chosen"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_survivors_are_tried_again():
    """What is noticed now is no survivor any more; the sums still hold."""
    before = {"mutants": 9, "killed": 5, "timeouts": 1, "survived": 3, "seconds": 2.0}
    again = {"mutants": 4, "killed": 2, "timeouts": 1, "survived": 1, "seconds": 1.0}
    joined = results.joined(before, again | {"survivors": [{}]})
    assert (joined["killed"], joined["timeouts"], joined["survived"]) == (6, 2, 1)
    assert joined["mutants"] == 9


def test_counts_of_a_result_add_up():
    """Outcomes are counted, and reasons kept for the survivors that they were written for."""
    mutants = mutants_of("x = a < b\ny = 5\n")
    outcomes = [("killed", "t"), ("survived", ""), ("timeout", "t"), ("survived", "")]
    before = {"survivors": [{"where": "module", "was": "y = 5", "now": "y = 4", "why": "size: w"}]}
    row = results.result("digest", mutants, outcomes, 1.25, before)
    counted = (row["mutants"], row["killed"], row["timeouts"], row["survived"])
    assert counted == (4, 1, 1, 2)
    assert [each["why"] for each in row["survivors"]] == ["", "size: w"]
    assert results.totals([row])["percent"] == 50
