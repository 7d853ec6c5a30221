"""identity: what a container says of its cache, and the first field that is another one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.container.manifest import Manifest, Part, RoleShape
from kvq_cli.errors import ExpectationError, UsageError
from kvq_cli.steps.identity import (
    DTYPES,
    GEOMETRY,
    KEYS,
    check_identity,
    check_keys,
    difference,
    said,
)
from kvq_cli.words import DType, Role

PAGE = (Path(__file__).parents[3] / "formats" / "report.md").read_text()
HOSTILE = st.one_of(
    st.text(min_size=1, max_size=20),
    st.sampled_from(
        ["=", "a=b=c", "\x1b[31m", "\n", "\0", "\u202e", "\u00e9", "e\u0301", "x" * 5000, "\ud800"]
    ),
)


def part(layers, tokens, key, value, *, heads=2):
    """Layers of one shape; key and value are (head_dim, dtype) or None."""
    pairs = ((Role.KEY, key), (Role.VALUE, value))
    roles = {role: RoleShape(*each, {}, None) for role, each in pairs if each is not None}
    return Part(layers, 1, heads, tokens, roles)


def manifest(*parts, layout="canonical", **identity):
    return Manifest(layout, identity, None, (), parts, (), (), (), (), 64, "zstd", 1, "kvq")


PLAIN = manifest(
    part(((0, 4),), 96, (64, DType.F16), (64, DType.F16)), model="m/n", rope_theta="1e4"
)
MIXED = manifest(
    part(((0, 1), (2, 3)), 64, (24, DType.BF16), (8, DType.F32)),
    part(((1, 2),), 24, (24, DType.BF16), None, heads=4),
)


def test_a_plain_container():
    """One value for each field, and none for what nobody said."""
    assert said(PLAIN) == {
        "model": "m/n",
        "rope_theta": "1e4",
        "layout": "canonical",
        "layers": "4",
        "batch": "1",
        "kv_heads": "2",
        "tokens": "96",
        **{f"{prefix}head_dim": "64" for prefix in ("", "key.", "value.")},
        **{f"{prefix}dtype": "f16" for prefix in ("", "key.", "value.")},
    }


def test_parts_and_roles_that_differ():
    """Every different value once, in the order of parts, keys before values."""
    found = said(MIXED)
    assert (found["layers"], found["kv_heads"], found["tokens"]) == ("3", "2,4", "64,24")
    assert (found["head_dim"], found["dtype"]) == ("24,8", "bf16,f32")
    assert (found["key.dtype"], found["value.dtype"]) == ("bf16", "f32")


def test_what_is_not_there_is_not_said():
    """No keys, no values, no parts: these fields differ from every value."""
    lone = said(manifest(part(((0, 1),), 5, None, (8, DType.F16))))
    assert "key.dtype" not in lone
    assert lone["dtype"] == "f16"
    assert said(manifest()) == {"layout": "canonical", "layers": "0"}
    assert difference(manifest(), {"tokens": "0"}) == 'expected tokens="0", container does not say'


def test_identity_cannot_pose_as_geometry():
    """A container may carry any key in its identity; that of the header counts."""
    posing = manifest(part(((0, 1),), 5, (8, DType.F16), None), tokens="9", own="x")
    assert said(posing)["tokens"] == "5"
    assert "own" not in said(posing)


def test_the_first_difference_is_named():
    """In the order asked: both values of the first, the names of the others."""
    assert difference(PLAIN, {"model": "m/n", "tokens": "96", "dtype": "F16"}) is None
    assert difference(PLAIN, {}) is None
    wanted = {"layers": "4", "model": "other", "tokenizer": "t", "kv_heads": "8"}
    assert difference(PLAIN, wanted) == (
        'expected model="other", container says "m/n"; also different: tokenizer, kv_heads'
    )
    assert difference(PLAIN, {"tokenizer": "t"}) == 'expected tokenizer="t", container does not say'
    # Text is text: case counts, and 1e4 is not 10000.
    assert difference(PLAIN, {"model": "M/N"})
    assert difference(PLAIN, {"rope_theta": "10000"})
    assert difference(PLAIN, {"tokens": "096"})
    with pytest.raises(ExpectationError) as refusal:
        check_identity(PLAIN, wanted)
    assert refusal.value.error_id == "E809"


def test_unknown_keys():
    """A key that no container can have is a mistake of the call, and the known ones are told."""
    check_keys(dict.fromkeys(KEYS, "x"))
    for key in ("modle", "Model", "", "path", "\x1b[31m", "x" * 5000):
        with pytest.raises(UsageError) as refusal:
            check_keys({key: "x"})
        assert refusal.value.error_id == "E101"
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 1000
        assert all(known in str(refusal.value) for known in KEYS)


def test_the_page_has_the_same_keys():
    """The keys of the header are those of the table."""
    section = PAGE.split("### Expectations\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*`) \|", section, re.MULTILINE)
    assert sorted(key for row in rows for key in re.findall(r"`([\w.]+)`", row)) == sorted(GEOMETRY)


@settings(deadline=None)
@given(
    text=HOSTILE,
    wanted=st.dictionaries(st.sampled_from(KEYS), HOSTILE, min_size=1, max_size=4),
)
def test_any_value_on_either_side(text, wanted):
    """One printable line of bounded length, or equal to the character."""
    container = manifest(part(((0, 1),), 5, (8, DType.F16), None), model=text, layout=text)
    message = difference(container, wanted)
    found = said(container)
    held = all(found.get(key) == wanted[key].lower() for key in wanted if key in DTYPES)
    held &= all(found.get(key) == wanted[key] for key in wanted if key not in DTYPES)
    assert (message is None) == held
    if message is not None:
        assert message.isprintable()
        assert message.isascii()
        assert len(message) < 2500
    assert difference(container, {"model": text, "layout": text}) is None
    assert difference(container, {"model": text + " "}) is not None
