"""record: what a frozen dataclass with slots is and does, a record is and does."""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any, ClassVar

import pytest

from kvq_cli.record import record


def body(decorate: Any) -> Any:
    """One class of every sort of field, as a record or as a dataclass."""

    @decorate
    class Body:
        kind: ClassVar[str] = "body"
        first: int
        second: str = "two"
        made: list[int] = field(default_factory=list)
        apart: int = field(default=4, compare=False, repr=False)
        later: int = field(init=False, compare=False)

        def __post_init__(self) -> None:
            if self.first < 0:
                raise ValueError("negative")
            object.__setattr__(self, "later", 2 * self.first)

        @property
        def twice(self) -> int:
            return self.first * 2

    return Body


BOTH = {
    "record": body(record),
    "dataclass": body(dataclass(frozen=True, slots=True)),
}


@record
class Base:
    first: int


@record
class Derived(Base):
    second: int = 2


@record(order=True)
class Place:
    page: int
    row: int


@record(eq=False)
class Held:
    thing: object


@record(kw_only=True)
class Named:
    first: int = 1
    second: int


@record
class Empty:
    """Nothing to hold."""


@pytest.mark.parametrize("kind", BOTH.values(), ids=BOTH)
def test_fields_defaults_and_text(kind):
    """Values by place and by name, defaults made anew, what is hidden left out of the text."""
    one, other = kind(1), kind(first=1, second="two", made=[], apart=5)
    assert repr(one) == f"{kind.__qualname__}(first=1, second='two', made=[], later=2)"
    assert [each.name for each in fields(kind)] == ["first", "second", "made", "apart", "later"]
    assert one.made is not other.made
    assert (one == other, one == 1, one != kind(2)) == (True, False, True)
    assert kind.__match_args__ == ("first", "second", "made", "apart")
    assert (one.twice, kind.kind, kind.__name__) == (2, "body", "Body")
    assert not hasattr(one, "__dict__")


@pytest.mark.parametrize("kind", BOTH.values(), ids=BOTH)
def test_nothing_can_be_set_or_deleted(kind):
    """Not a field, and nothing new either."""
    one = kind(1)
    with pytest.raises(FrozenInstanceError):
        one.first = 2
    with pytest.raises(FrozenInstanceError):
        del one.first
    with pytest.raises((FrozenInstanceError, TypeError)):
        one.other = 2
    assert one.first == 1


@pytest.mark.parametrize("kind", BOTH.values(), ids=BOTH)
@pytest.mark.parametrize("given", [((), {}), ((1, 2, 3, 4, 5), {}), ((1,), {"later": 3})])
def test_wrong_arguments_are_told(kind, given):
    """Too few, too many, or one that is not taken."""
    arguments, named = given
    with pytest.raises(TypeError, match="argument"):
        kind(*arguments, **named)
    with pytest.raises(ValueError, match="negative"):
        kind(-1)


@pytest.mark.parametrize("kind", BOTH.values(), ids=BOTH)
def test_replace_runs_the_checks_again(kind):
    """As for any dataclass."""
    assert replace(kind(1), first=3).later == 6
    with pytest.raises(ValueError, match="negative"):
        replace(kind(1), first=-1)


def test_hashes_follow_equality():
    """Equal records share a hash; what is not compared is not hashed."""
    assert hash(Derived(1)) == hash(Derived(1, 2))
    assert len({Place(1, 2), Place(1, 2), Place(2, 1), Empty(), Empty()}) == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(BOTH["record"](1))


def test_records_of_other_classes_differ():
    """A derived record is no record of its base."""
    assert Derived(1) != Base(1)
    assert Base(1).__eq__(Derived(1)) is NotImplemented


def test_identity_and_order():
    """eq=False compares objects, order=True their fields in order."""
    thing = object()
    assert Held(thing) != Held(thing)
    assert len({Held(thing), Held(thing)}) == 2
    places = [Place(2, 0), Place(1, 9), Place(1, 3)]
    assert sorted(places) == places[::-1]
    assert Place(1, 2) <= Place(1, 2) < Place(1, 3) > Place(1, 2) >= Place(1, 2)
    with pytest.raises(TypeError):
        assert Place(1, 2) < 3
    with pytest.raises(TypeError):
        assert Base(1) < Base(2)


def test_keywords_only():
    """A default may come before a field that has none."""
    assert repr(Named(second=5)) == "Named(first=1, second=5)"
    with pytest.raises(TypeError, match="positional"):
        Named(1, 2)


@pytest.mark.parametrize("one", [Derived(1, 3), Place(1, 2), Named(second=2), Empty()])
def test_copies_and_pickles_are_equal(one):
    """Slots come back past the refusal to set them."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(one, protocol)) == one  # noqa: S301 - our own
    assert copy.copy(one) == one == copy.deepcopy(one)


def test_methods_of_the_class_itself_stay():
    """What a class says of its own text is not written over."""

    @record
    class Own:
        value: int

        def __repr__(self) -> str:
            return "own"

    assert repr(Own(1)) == "own"
