"""facts: metadata is believed where it is plain, and left out where it is not."""

from __future__ import annotations

import pytest

from kvq_cli.capture.facts import IDENTITY, MAX_VALUE, Facts, facts_of, identity_of


@pytest.mark.parametrize(
    ("metadata", "facts", "notes"),
    [
        ({}, Facts(), 0),
        ({"rope_state": "", "attention_kind": ""}, Facts(), 0),
        (
            {"rope_state": "post", "attention_kind": "gqa", "query_heads": "12"},
            Facts("gqa", 12, "post_rope"),
            0,
        ),
        ({"rope_state": "pre"}, Facts(rope_state="pre_rope"), 0),
        ({"rope_state": "none"}, Facts(rope_state="pre_rope"), 0),
        ({"rope_state": "post_rope"}, Facts(rope_state="post_rope"), 0),
        ({"rope_state": "half", "attention_kind": "GQA", "query_heads": "0"}, Facts(), 3),
        ({"query_heads": "1" * 5000}, Facts(), 1),
        ({"query_heads": "\u0663"}, Facts(), 1),
    ],
)
def test_facts(metadata: dict[str, str], facts: Facts, notes: int) -> None:
    """Known words become the contract's; others become nothing and a note."""
    found, said = facts_of(metadata)
    assert found == facts
    assert len(said) == notes
    assert all(note.isprintable() for note in said)


def test_identity_is_closed() -> None:
    """Only the listed keys are carried; texts, hosts and times are not among them."""
    metadata = dict.fromkeys((*IDENTITY, "text", "host", "user", "created", "prompt"), "x")
    assert list(identity_of(metadata)[0]) == list(IDENTITY)


@pytest.mark.parametrize(
    "model", ["/home/ann/llama", "~/llama", "C:\\models", "../llama", "file:///x", "\\\\host\\x"]
)
def test_no_paths(model: str) -> None:
    """A model named by its folder is left out with a note."""
    assert identity_of({"model": model}) == ({}, identity_of({"model": model})[1])
    assert len(identity_of({"model": model})[1]) == 1


def test_model_ids_are_no_paths() -> None:
    """The usual owner/name ids are carried."""
    assert identity_of({"model": "owner/name-1.5B"}) == ({"model": "owner/name-1.5B"}, [])


def test_long_values() -> None:
    """A value too long for a container's header is left out with a note."""
    assert identity_of({"model": "x" * MAX_VALUE})[1] == []
    identity, notes = identity_of({"model": "x" * (MAX_VALUE + 1)})
    assert identity == {}
    assert len(notes) == 1
