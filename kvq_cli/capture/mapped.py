"""mapped: tensors bound by the rules of a layout map.

Spec: formats/layout_map.md, section "Binding".
"""

from __future__ import annotations

import re
from typing import Final

from kvq_cli.capture.adapter import Adapter, Found
from kvq_cli.capture.binding import Binding, bound
from kvq_cli.capture.files import Files
from kvq_cli.capture.header import Tensor, shown
from kvq_cli.capture.layout_map import LayoutMap
from kvq_cli.capture.map_rules import MapRule
from kvq_cli.capture.pattern import fitted, ways
from kvq_cli.errors import CaptureError
from kvq_cli.words import Role

NAME: Final = "map"
MAX_NUMBER: Final = 65535
MAX_TRIES: Final = 1 << 27  # of all names by all patterns: about a second of them
NUMBER: Final = re.compile("0*[0-9]{1,5}", re.ASCII)


def adapter_of(layout_map: LayoutMap) -> Adapter:
    """A layout map as a layout, which is tried where it is named."""
    return Adapter(lambda files: recognise(layout_map, files), named=True)


def recognise(layout_map: LayoutMap, files: Files) -> Found | None:
    """Each tensor by the first rule that fits; CaptureError where it then cannot be as told."""
    _check_tries(layout_map, files)
    bindings, used = [], set()
    for tensor in files.tensors:
        for at, rule in enumerate(layout_map.rules):
            groups = _groups(rule, files, tensor)
            if groups is not None:
                bindings.append(_binding(files, tensor, rule, f"/rules/{at}", groups))
                used.add(at)
                break
    idle = [f"/rules/{at}" for at in range(len(layout_map.rules)) if at not in used]
    notes = [f"no tensor fits {pointer} of the layout map" for pointer in idle]
    # What the files tell counts before it.
    facts = {key: text for key, text in layout_map.facts.items() if not files.metadata.get(key)}
    return Found(tuple(bindings), tuple(notes), identity=facts) if bindings else None


def _check_tries(layout_map: LayoutMap, files: Files) -> None:
    """CaptureError where so many names and patterns could take long."""
    names = [max(len(each.name), len(files.name_of(each)), 1) for each in files.tensors]
    texts = [text for rule in layout_map.rules for text in rule.texts]
    tries = len(names) * sum(ways(text, max(names, default=1)) for text in texts)
    if tries > MAX_TRIES:
        found = f"{len(names)} names and {len(texts)} patterns could be tried in {tries} ways"
        raise CaptureError("E207", f"{found}, at most {MAX_TRIES} are allowed")


def _groups(rule: MapRule, files: Files, tensor: Tensor) -> dict[str, str] | None:
    """What the groups of a rule match in the names of a tensor and its file; None if unfit."""
    matches = [fitted(rule.name, tensor.name)]
    if rule.file is not None:
        # A capture of one file has no name that anybody could rely on.
        matches.append(fitted(rule.file, files.name_of(tensor)) if files.folder else None)
    found: dict[str, str] = {}
    for match in matches:
        if match is None:
            return None
        found |= {name: text for name, text in match.groupdict().items() if text is not None}
    return found


def _binding(
    files: Files, tensor: Tensor, rule: MapRule, pointer: str, groups: dict[str, str]
) -> Binding:
    label = shown(files.label(tensor))
    layer = _number(groups, "layer", rule.first_layer, label, pointer)
    head = _number(groups, "head", rule.first_head, label, pointer)
    roles = rule.role or _role(rule, groups.get("role", ""), label, pointer)
    binding = bound(tensor, roles, rule.axes, layer, head, **rule.lengths)
    if binding is None:
        told = ", ".join(f"{letter} {size}" for letter, size in rule.lengths.items())
        axes = f'"{rule.axes}"' + (f" with {told}" if told else "")
        found = f"shape {list(tensor.shape)} does not suit axes {axes} of {pointer}"
        raise CaptureError("E204", found, label)
    for word, last in (("layer", binding.layers.stop - 1), ("head", binding.heads.stop - 1)):
        if last > MAX_NUMBER:
            raise CaptureError("E207", f"{word} {last}, at most {MAX_NUMBER} is allowed", label)
    return binding


def _number(groups: dict[str, str], word: str, first: int, label: str, pointer: str) -> int:
    """A number of the name, counted from `first`."""
    text = groups.get(word, "0")
    if not NUMBER.fullmatch(text):
        found = f'{word} "{shown(text)}" of {pointer}/name is no number up to {MAX_NUMBER}'
        raise CaptureError("E204", found, label)
    number = int(text) + first
    if number < 0:
        raise CaptureError(
            "E204", f"{word} {number}: first_{word} of {pointer} is too small", label
        )
    return number


def _role(rule: MapRule, text: str, label: str, pointer: str) -> tuple[Role, ...]:
    if text not in rule.roles:
        raise CaptureError("E204", f'role "{shown(text)}" is not in {pointer}/roles', label)
    return (rule.roles[text],)
