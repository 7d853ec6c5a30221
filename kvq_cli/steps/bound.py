"""bound: profiles with the codec transform get their calibration: a basis, groups, matrices.

Spec: formats/profile.md, section "Calibrations"; formats/transform.md.

A profile names the codec; whose matrices it takes is told when a capture is compressed, and a
container says so in its codecs. Positions are undone only where keys hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from kvq_cli.capture import Capture
from kvq_cli.codecs import Codec
from kvq_cli.codecs.matrices import FORWARD, forward_name
from kvq_cli.codecs.transform import Transform
from kvq_cli.errors import ProfileError, UsageError
from kvq_cli.planes import table_spec
from kvq_cli.profile import Profile
from kvq_cli.steps.calibrate import MEMBER, held_to_calibration
from kvq_cli.steps.calibrated import Calibrated, Spans
from kvq_cli.steps.choose import Choice
from kvq_cli.steps.kvqcal import Kvqcal, load_kvqcal
from kvq_cli.steps.own_basis import own_calibration
from kvq_cli.steps.work import Progress
from kvq_cli.words import Role, TableSpec

SELF: Final = "self"  # in place of a file: of the capture itself


def calibrated(
    capture: Capture,
    choices: tuple[Choice, ...],
    source: str | Path | None,
    threads: int,
    progress: Progress,
) -> tuple[tuple[Choice, ...], Calibrated]:
    """The profiles, bound; ProfileError where they name another calibration than `source`."""
    if not any(needs_transform(choice.profile) for choice in choices):
        named = held_to_calibration(capture, [choice.profile for choice in choices], source)
        return choices, Calibrated(named)
    if source is None:
        found = "the codec transform needs a calibration; --calibration gives its file"
        raise ProfileError("E403", found)
    own = str(source) == SELF
    loaded = own_calibration(capture, threads, progress) if own else load_kvqcal(source)
    for choice in choices:
        named = choice.profile.calibration_digest
        if needs_transform(choice.profile) and named not in (None, loaded.digest):
            found = f"the profile is for {named}, {source} is {loaded.digest}"
            raise ProfileError("E402", found, MEMBER)
    array = loaded.array
    table = table_spec(array)
    turned = _turned(capture, loaded)
    bound = tuple(_bound(choice, table, turned=turned) for choice in choices)
    tables = {table.digest: array, **_forward(table.digest, loaded)}
    groups = {role: _spans(loaded, role) for role in Role}
    notes = (_cost(table.nbytes),) if own else ()
    return bound, Calibrated(loaded.digest, tables, groups, table, notes, own=own)


def _cost(nbytes: int) -> str:
    return (
        f"a basis of its own takes {nbytes} bytes before entropy coding, and differs between "
        "machines: it is for long captures; kvq calibrate makes one for many"
    )


def needs_transform(profile: Profile) -> bool:
    """Whether a rule, or a rung of its ladder, names the codec transform."""
    return any(isinstance(codec, Transform) for codec in profile.codecs())


def _turned(capture: Capture, calibration: Kvqcal) -> bool:
    """Whether keys hold the positions that the calibration knows of."""
    if not any(group.turn is not None for group in calibration.basis.groups):
        return False
    state = capture.identity.get("rope_state")
    if state is None:
        found = "the calibration undoes rotary positions, and the capture does not tell whether"
        raise UsageError("E101", f"{found} its keys have them; --meta rope_state=post or pre")
    return state == "post"


def _bound(choice: Choice, table: TableSpec, *, turned: bool) -> Choice:
    def of(codec: Codec) -> Codec:
        if not isinstance(codec, Transform) or codec.basis is not None:
            return codec
        return replace(codec, basis=table.digest, size=table.nbytes, turned=turned)

    return replace(choice, profile=with_codecs(choice.profile, of))


def with_codecs(profile: Profile, of: Any) -> Profile:
    """The profile with of(codec) for each of its codecs."""
    rules = tuple(replace(rule, codec=of(rule.codec)) for rule in profile.rules)
    budget = profile.budget
    if budget is not None:
        ladder = tuple(replace(rung, codec=of(rung.codec)) for rung in budget.ladder)
        budget = replace(budget, ladder=ladder)
    return replace(profile, rules=rules, budget=budget)


def _forward(basis: str, calibration: Kvqcal) -> dict[str, NDArray[Any]]:
    """An encoder's matrices, by the names that it looks for."""
    return {
        forward_name(basis, number, part): array
        for number, each in enumerate(calibration.forward)
        for part, array in zip(FORWARD, (each.matrix, each.inward, each.outward), strict=True)
    }


def _spans(calibration: Kvqcal, role: Role) -> Spans:
    groups: Sequence[Any] = [each for each in calibration.basis.groups if each.role is role]
    return tuple((group.first, group.layers) for group in groups)
