"""headers: safetensors files of all kinds, valid, nearly valid and damaged, from a seed.

    file = generated(random.Random(7))

A header is a list of members, each name and JSON text, so that it may hold what no dict can.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import TypeAlias

from support.captures import raw_safetensors

BITS = {"F4": 4, "F6_E2M3": 6, "BOOL": 8, "U8": 8, "F8_E4M3": 8, "I16": 16, "F16": 16, "BF16": 16}
BITS |= {"I32": 32, "F32": 32, "U64": 64, "F64": 64, "C64": 64}
LETTERS = (
    "a",
    "key",
    "layers.0.value",
    "é",
    "\x1b[31m",
    "\ud83d\ude00",
    "",
    '"',
    "\\",
    "\x00",
    "/",
)
NUMBERS = ("-1", "-0", "0.0", "4.0", "4e0", "1e999", "true", "null", '"4"', "[]", "{}", "00")
NUMBERS += tuple(str((1 << bits) + by) for bits in (31, 53, 62, 63, 64, 128) for by in (-1, 0, 1))
WORDS = ("f16", "Q16", "", "F16 ", "F8_E4M3FN", "U128", "BOOL", "U8", "F32")
VALUES = (*NUMBERS, '"text"', "[" * 20 + "]" * 20, "[" * 200 + "]" * 200, "NaN", '{"a":"b"}')
SPACES = ("", " ", "\n\t\r ", "\0", "x", "{}", ",", "\ufeff")

Members: TypeAlias = list[tuple[str, str]]


class Draft:
    """A header on its way: members of the object, of each tensor, the data, spaces."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.metadata: Members | str | None = None
        self.tensors: list[tuple[str, Members]] = []
        self.data = 0
        self.before, self.behind = "", " " * chance.randint(0, 7)
        self.replaced = ("", "")
        names = chance.sample(LETTERS, chance.randint(0, 4))
        for name in names:
            self.tensors.append(
                (json.dumps(name, ensure_ascii=chance.random() < 0.5), self.entry())
            )
        if chance.random() < 0.4:
            self.metadata = [(json.dumps(each), '"text"') for each in chance.sample(LETTERS, 2)]
        chance.shuffle(self.tensors)
        self.sound = list(self.tensors)

    def entry(self) -> Members:
        dtype = self.chance.choice(list(BITS))
        shape = [self.chance.choice([0, 1, 1, 2, 3, 5]) for _ in range(self.chance.randint(0, 4))]
        bits = BITS[dtype] * (self.chance.choice([1, 4]) if BITS[dtype] < 8 else 1)
        shape += [] if BITS[dtype] >= 8 else [bits // BITS[dtype]]
        for length in shape if BITS[dtype] >= 8 else shape[:-1]:
            bits *= length
        stop = self.data + bits // 8
        offsets = f"[{self.data},{stop}]"
        self.data = stop
        return [('"dtype"', f'"{dtype}"'), ('"shape"', str(shape)), ('"data_offsets"', offsets)]

    def text(self) -> str:
        members = [(name, spelled(entry)) for name, entry in self.tensors]
        if self.metadata is not None:
            told = self.metadata if isinstance(self.metadata, str) else spelled(self.metadata)
            members.insert(self.chance.randint(0, len(members)), ('"__metadata__"', told))
        return self.before + spelled(members).replace(*self.replaced, 1) + self.behind

    def some(self) -> Members:
        """The members of a tensor that no fault has touched; it moves to the end."""
        if not self.sound:
            self.tensors.append((f'"new {len(self.tensors)}"', self.entry()))
            self.sound.append(self.tensors[-1])
        chosen = self.sound.pop(self.chance.randrange(len(self.sound)))
        self.tensors.remove(chosen)
        self.tensors.append(chosen)
        return chosen[1]


def spelled(members: Members) -> str:
    return "{" + ",".join(f"{key}:{value}" for key, value in members) + "}"


def member_twice(draft: Draft) -> None:
    entry = draft.some()
    entry.insert(draft.chance.randrange(4), draft.chance.choice(entry))


def tensor_twice(draft: Draft) -> None:
    entry = draft.some()
    again = entry if draft.chance.random() < 0.5 else draft.entry()
    draft.tensors.append((draft.tensors[-1][0], again))


def metadata_twice(draft: Draft) -> None:
    draft.metadata = [('"k"', '"1"'), ('"k"', '"2"')]


def metadata_other(draft: Draft) -> None:
    draft.metadata = draft.chance.choice([*VALUES, '{"k":1}', '{"k":null}', '{"k":{"a":"b"}}'])


def member_more(draft: Draft) -> None:
    name = draft.chance.choice(['"fmt"', '"fmt"', '"__metadata__"', '"x"', '"FMT"'])
    draft.some().append((name, draft.chance.choice(VALUES)))


def member_less(draft: Draft) -> None:
    entry = draft.some()
    entry.pop(draft.chance.randrange(len(entry)))


def member_other(draft: Draft) -> None:
    entry = draft.some()
    at = draft.chance.randrange(len(entry))
    words = [f'"{word}"' for word in WORDS]
    entry[at] = (entry[at][0], draft.chance.choice([*VALUES, *words]))


def order_other(draft: Draft) -> None:
    draft.chance.shuffle(draft.some())


def number_other(draft: Draft) -> None:
    """One number of a shape or of offsets is another."""
    entry = draft.some()
    at = draft.chance.choice([1, 2])
    numbers = entry[at][1][1:-1].split(",")
    place = draft.chance.randrange(len(numbers))
    near = str(int(numbers[place] or "0") + draft.chance.choice([-1, 1]))
    numbers[place] = draft.chance.choice([near, draft.chance.choice(NUMBERS)])
    entry[at] = (entry[at][0], f"[{','.join(numbers)}]")


def shape_longer(draft: Draft) -> None:
    entry = draft.some()
    ones = ",".join(["1"] * draft.chance.randint(5, 70))
    rest = entry[1][1][1:-1]
    entry[1] = (entry[1][0], f"[{ones}{',' if rest.strip() else ''}{rest}]")


def shape_huge(draft: Draft) -> None:
    entry = draft.some()
    huge = str(1 << draft.chance.choice([30, 58, 60, 61, 62, 63]))
    lengths = [huge, draft.chance.choice(["0", "2", huge]), "0"]
    draft.chance.shuffle(lengths)
    span = entry[2][1][1:-1].split(",")[0]
    entry[1:] = [('"shape"', f"[{','.join(lengths)}]"), ('"data_offsets"', f"[{span},{span}]")]


def as_array(draft: Draft) -> None:
    values = ",".join(value for _, value in draft.some())
    name = draft.tensors[-1][0]
    draft.tensors[-1] = (name, [])
    draft.replaced = (f"{name}:{{}}", f"{name}:[{values}]")


def spaces_other(draft: Draft) -> None:
    if draft.chance.random() < 0.5:
        draft.before = draft.chance.choice(SPACES)
    else:
        draft.behind += draft.chance.choice(SPACES)


def data_other(draft: Draft) -> None:
    draft.data = max(0, draft.data + draft.chance.choice([-8, -1, 1, 8]))


FAULTS: tuple[Callable[[Draft], None], ...] = (
    member_twice, tensor_twice, metadata_twice, metadata_other, member_more, member_less,
    member_other, order_other, number_other, number_other, shape_longer, shape_huge, as_array,
    spaces_other, data_other,
)  # fmt: skip


def generated(chance: random.Random) -> bytes:
    """A file: nearly a third are valid, most have a fault or two, some are damaged as bytes."""
    draft = Draft(chance)
    draw = chance.random()
    for _ in range(0 if draw < 0.3 else chance.choice([1, 1, 1, 2])):
        chance.choice(FAULTS)(draft)
    text = draft.text()
    data = text.encode("utf-8", "surrogatepass")
    if draw > 0.75:
        data = scratched(data, chance)
    stated = len(data) + (chance.choice([-2, -1, 1, 9]) if draw > 0.97 else 0)
    body = chance.randbytes(min(draft.data, 4096)) if draft.data <= 4096 else b""
    return raw_safetensors(data, body, max(0, stated))


def scratched(data: bytes, chance: random.Random) -> bytes:
    """One to three bytes changed, added or left out."""
    edited = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(edited) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            edited[at:at] = chance.choice([b" ", b"0", b"-", b'"', b"\\", b"}", b"\xff", b"\n"])
        elif kind == 1:
            del edited[at : at + 1]
        elif kind == 2 and at < len(edited):
            edited[at] ^= 1 << chance.randrange(8)
        else:
            edited[at:at] = edited[at : at + chance.randint(1, 12)]
    return bytes(edited)
