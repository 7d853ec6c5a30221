"""guess_rules: the rules of a proposal: patterns of names, roles and axes of one family.

Spec: formats/layout_map.md, section "Proposals".
"""

from __future__ import annotations

from typing import Any, Final

from kvq_cli.capture.files import Files
from kvq_cli.capture.guess_axes import Axes, Known, UnclearError, guess_axes
from kvq_cli.capture.guess_names import BREAK, HEAD_WORDS, LAYER_WORDS, Family, Member
from kvq_cli.capture.header import shown
from kvq_cli.capture.pattern import quoted
from kvq_cli.words import Role

OPEN: Final = "?"  # what the user has to fill in


class Proposal:
    """The rules for one family; doubts are added on the way."""

    def __init__(self, files: Files, family: Family, known: Known, doubts: list[str]) -> None:
        self._files = files
        self._family = family
        self._known = known
        self._doubts = doubts
        self._layer, self._head = self._numbers()

    def rules(self) -> list[dict[str, Any]]:
        """One rule, or one for each role where they lie differently."""
        by_roles: dict[tuple[Role, ...], list[Member]] = {}
        for each in sorted(self._family.members, key=lambda each: each.roles):
            by_roles.setdefault(each.roles, []).append(each)
        axes = {roles: self._axes(roles, each) for roles, each in by_roles.items()}
        if len(by_roles) == 1 and len(next(iter(by_roles))) == 1:
            self._doubts.append(f"only {next(iter(by_roles))[0].word}s were found")
        if self._family.role is not None and not self._family.worded:
            self._doubts.append("0 is taken for keys and 1 for values")
        self._doubts += dict.fromkeys(doubt for each in axes.values() for doubt in _doubts(each))
        told = list(axes.values())
        if len(told) == 2 and all(map(_same, told, told[1:])):
            return [{**self._place(by_roles, together=True), **_axes_json(told[0])}]
        return [
            {**self._place({roles: each}, together=False), **_axes_json(axes[roles])}
            for roles, each in by_roles.items()
        ]

    def _numbers(self) -> tuple[int | None, int | None]:
        """Which piece of the names is the layer, and which the head."""
        family = self._family
        heads = [at for at in family.numbers if family.before(at) in HEAD_WORDS]
        layers = [at for at in family.numbers if at not in heads]
        if len(heads) > 1 or len(layers) > 2:
            self._doubts.append(
                "several numbers of the names differ: the first is taken for layers"
            )
        if len(layers) == 2 and not heads:
            named = [at for at in layers if family.before(at) in LAYER_WORDS]
            layer = named[0] if named else layers[0]
            head = layers[1 - layers.index(layer)]
            self._doubts.append("of two numbers in the names one is taken for heads")
            return layer, head
        return (layers[0] if layers else None), (heads[0] if heads else None)

    def _axes(self, roles: tuple[Role, ...], members: list[Member]) -> Axes | None:
        try:
            return guess_axes(
                [each.tensor.shape for each in members],
                self._known,
                both=len(roles) > 1,
                layer=self._layer is not None,
                head=self._head is not None,
            )
        except UnclearError as error:
            label = shown(self._files.label(members[0].tensor))
            shape = list(members[0].tensor.shape)
            self._doubts.append(f'"{label}" {shape}: {error}; fill in the axes')
            return None

    def _place(
        self, by_roles: dict[tuple[Role, ...], list[Member]], *, together: bool
    ) -> dict[str, Any]:
        """The members of a rule that say which tensors it is for, and their role."""
        (roles, (first, *_)), *_ = by_roles.items()
        if not together:
            names = self._names(self._text(first, None))
            return {**names, "role": roles[0].word if len(roles) == 1 else "both"}
        role = self._family.role
        assert role is not None
        words = {each[0].pieces[role]: roles[0].word for roles, each in by_roles.items()}
        names = self._names(self._text(first, f"(?P<role>{'|'.join(words)})"))
        return {**names, "roles": words}

    def _text(self, member: Member, role: str | None) -> str:
        """The pattern of a name."""
        return "".join(self._piece(member, at, role) for at in range(len(member.pieces)))

    def _piece(self, member: Member, at: int, role: str | None) -> str:
        if at == self._layer:
            return r"(?P<layer>\d+)"
        if at == self._head:
            return r"(?P<head>\d+)"
        if at == self._family.role and role is not None:
            return role
        return r"\d+" if at in self._family.numbers else quoted(member.pieces[at])

    def _names(self, pattern: str) -> dict[str, str]:
        """The pattern of the tensor's name, and that of its file where that tells anything."""
        if not self._files.folder:
            return {"name": pattern}
        file, _, name = pattern.partition(BREAK)
        folders, slash, last = file.rpartition("/")
        if "(?P<" not in folders and slash:
            file = f"(?:.*/)?{last}"
        return {"file": file, "name": name} if "(?P<" in file else {"name": name}


def _doubts(axes: Axes | None) -> list[str]:
    return axes.doubts if axes else []


def _same(one: Axes | None, other: Axes | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.groups, one.lengths) == (other.groups, other.lengths)


def _axes_json(axes: Axes | None) -> dict[str, Any]:
    if axes is None:
        return {"axes": OPEN}
    return {"axes": axes.text, **({"lengths": axes.lengths} if axes.lengths else {})}
