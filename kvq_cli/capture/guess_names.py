"""guess_names: what the names of tensors tell: which go together, keys or values, the layer.

Spec: formats/layout_map.md, section "Proposals".

A name is cut into words, numbers and what is between them. Names that differ in numbers alone
are a family; two families that differ in one word, of which one is for keys and the other for
values, are one. In a folder the file's name stands before the tensor's, with a line break.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from kvq_cli.capture.files import Files
from kvq_cli.capture.header import Tensor
from kvq_cli.record import record
from kvq_cli.words import Role

PIECE: Final = re.compile(r"\d+|[A-Z]?[a-z]+|[A-Z]+|\n|[^A-Za-z\d\n]+|.", re.ASCII)
BREAK: Final = "\n"
# Words for keys, and what the same tool calls values.
WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "k": ("v",),
    "key": ("value", "val"),
    "keys": ("values", "vals"),
    "kcache": ("vcache",),
    "keycache": ("valuecache",),
}
VALUES: Final = {each: key for key, values in WORDS.items() for each in values}
PAIR: Final = frozenset({"0", "1"})
LAYER_WORDS: Final = ("layer", "layers", "l", "blk", "block", "blocks", "h")
HEAD_WORDS: Final = ("head", "heads", "hd")

Skeleton: TypeAlias = tuple[str, ...]


@record
class Member:
    """A tensor, its name in pieces, and the role that they tell."""

    tensor: Tensor
    pieces: tuple[str, ...]
    roles: tuple[Role, ...]


@record
class Family:
    """Tensors whose names differ in these pieces alone."""

    members: tuple[Member, ...]
    role: int | None  # which piece tells the role
    numbers: tuple[int, ...]  # which other pieces differ
    worded: bool  # a word says that it is keys or values

    @property
    def nbytes(self) -> int:
        return sum(each.tensor.nbytes for each in self.members)

    def before(self, at: int) -> str:
        """The last word before a piece."""
        words = [piece for piece in self.members[0].pieces[:at] if piece.isalpha()]
        return words[-1].lower() if words else ""


def families(files: Files, tensors: Iterable[Tensor]) -> list[Family]:
    """The families of these tensors, the largest first; those that words pair come first."""
    by_skeleton: dict[tuple[Skeleton, int], list[Member]] = {}
    for tensor in tensors:
        pieces = _pieces(files, tensor)
        skeleton = tuple("#" if piece.isdecimal() else piece for piece in pieces)
        rank = len(tensor.shape)
        by_skeleton.setdefault((skeleton, rank), []).append(Member(tensor, pieces, ()))
    found = list(_families(by_skeleton))
    return sorted(found, key=lambda each: (not each.worded, -each.nbytes))


def _pieces(files: Files, tensor: Tensor) -> tuple[str, ...]:
    text = f"{files.name_of(tensor)}{BREAK}{tensor.name}" if files.folder else tensor.name
    return tuple(PIECE.findall(text))


def _families(by_skeleton: dict[tuple[Skeleton, int], list[Member]]) -> Iterator[Family]:
    taken: set[tuple[Skeleton, int]] = set()
    of_rank: dict[int, set[Skeleton]] = {}
    for skeleton, rank in by_skeleton:
        of_rank.setdefault(rank, set()).add(skeleton)
    for (skeleton, rank), members in by_skeleton.items():
        if (skeleton, rank) in taken:
            continue
        at, other = _pair(skeleton, of_rank[rank])
        if other is not None:
            taken |= {(skeleton, rank), (other, rank)}
            both = [*members, *by_skeleton[other, rank]]
            yield _family([_with_role(each, at) for each in both], at, worded=True)
        elif at is not None:
            taken.add((skeleton, rank))
            yield _family([_with_role(each, at) for each in members], at, worded=True)
    for place, members in by_skeleton.items():
        if place not in taken:
            yield _unworded(members)


def _pair(skeleton: Skeleton, others: set[Skeleton]) -> tuple[int | None, Skeleton | None]:
    """Which word tells the role, and the skeleton of the other role, if there is one."""
    last = None
    for at, piece in enumerate(skeleton):
        partners = _partners(piece)
        last = at if partners else last
        for partner in partners:
            other = (*skeleton[:at], partner, *skeleton[at + 1 :])
            if other in others:
                return at, other
    return last, None


def _partners(word: str) -> list[str]:
    """What the other role may be called, in the same case."""
    plain = word.lower()
    found = WORDS.get(plain) or ((VALUES[plain],) if plain in VALUES else ())
    if word.isupper():
        return [each.upper() for each in found]
    return [each.title() for each in found] if word[0].isupper() else list(found)


def _with_role(member: Member, at: int | None) -> Member:
    assert at is not None
    word = member.pieces[at].lower()
    role = Role.KEY if word in WORDS or word == "0" else Role.VALUE
    return Member(member.tensor, member.pieces, (role,))


def _unworded(members: list[Member]) -> Family:
    """A family without a word for its role: 0 and 1 at the end may tell it, or it holds both."""
    numbers = _differing(members, None)
    if len(numbers) > 1 and {each.pieces[numbers[-1]] for each in members} == PAIR:
        return _family([_with_role(each, numbers[-1]) for each in members], numbers[-1])
    both = [Member(each.tensor, each.pieces, tuple(Role)) for each in members]
    return _family(both, None)


def _family(members: list[Member], role: int | None, *, worded: bool = False) -> Family:
    return Family(tuple(members), role, tuple(_differing(members, role)), worded)


def _differing(members: Sequence[Member], role: int | None) -> list[int]:
    """Which numbers of the names differ; of one name, those behind a word for layers or heads."""
    one = Family((members[0],), role, (), worded=False)
    single = len({tuple(numbers(each, role)) for each in members}) == 1
    found = []
    for at, piece in enumerate(members[0].pieces):
        if at == role or not piece.isdecimal():
            continue
        named = one.before(at) in (*LAYER_WORDS, *HEAD_WORDS)
        if (single and named) or len({each.pieces[at] for each in members}) > 1:
            found.append(at)
    return found


def numbers(member: Member, role: int | None) -> Iterator[str]:
    """All numbers of a name but the one that tells its role."""
    for at, piece in enumerate(member.pieces):
        if at != role and piece.isdecimal():
            yield piece
