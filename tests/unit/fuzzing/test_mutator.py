"""mutator: JSON stays JSON, and one seed gives one text."""

from __future__ import annotations

import json

import pytest

from fuzzing.mutator import EDITS, Chance, JsonMutator, value_end

TEXT = b'\0{"a":[1,{"b":"x","c":null}],"d":{"e":[true,-2.5],"f":"\\"]"},"g":[[3],4]}'
WORDS = ("key", "value")


def mutator():
    return JsonMutator(WORDS, lambda data, most: data[: most // 2])


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edit_mostly_leaves_json(edit):
    """Two of three, and at least four different ones; some of what is put in is meant to break."""
    found = set()
    good = 0
    for seed in range(300):
        made = edit(mutator(), TEXT, Chance(seed))
        found.add(made)
        try:
            json.loads(made[1:])
            good += 1
        except ValueError:
            continue
    assert good >= 200
    assert len(found) >= 4


def test_a_seed_gives_one_text_of_at_most_the_length():
    """Runs can be made again; half is left to libFuzzer."""
    made = [mutator()(TEXT, 60, seed) for seed in range(200)]
    assert made == [mutator()(TEXT, 60, seed) for seed in range(200)]
    assert all(len(each) <= 60 for each in made)
    assert 60 < sum(each == TEXT[:30] for each in made) < 140


def test_no_bytes_make_it_fail():
    """What is no JSON is some other text."""
    for data in (b"", b"\0", b"\0\0\0", b"{{{[[[", b'"', b'\0"a":', b"]]]]", b"\xff" * 40):
        for seed in range(100):
            assert isinstance(mutator()(data, 100, seed), bytes)


@pytest.mark.parametrize(
    ("text", "end"), [(b'"a]",1', 4), (b"12,", 2), (b"[1,[2]],3", 7), (b'{"}":1}]', 7), (b"[1", 0)]
)
def test_the_end_of_a_value(text, end):
    """Brackets in strings do not count; what does not end has no length."""
    assert value_end(text, 0) == end
