"""calibrated_file: a calibration of the codec transform written down, and what is told of it.

Spec: formats/transform.md, section "The file"; formats/report.md, section "calibrate".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from kvq_cli import jsontext
from kvq_cli.capture.facts import LOCAL_PATH
from kvq_cli.capture.header import Header
from kvq_cli.digest import Buffer, plain, text
from kvq_cli.quality.distortion import rounded
from kvq_cli.steps.given import TEXT, Given, common
from kvq_cli.steps.kvqcal import file_of
from kvq_cli.steps.learned import Learned
from kvq_cli.steps.output import Output
from kvq_cli.steps.reports import TransformReport
from kvq_cli.steps.transformed import QUERIES, Made, Setting
from kvq_cli.steps.transforms import STEP
from kvq_cli.words import Role


def write(
    output: Output, made: Made, captures: Sequence[Given], setting: Setting
) -> TransformReport:
    """The file, and what a report tells of it."""
    held, tokens = held_out(made.groups), max(each.tokens for each in made.groups)
    table = made.basis.to_bytes()
    header, data = file_parts(made, table, captures, setting)
    hasher = blake3(header.raw)
    output.write(header.raw)
    for each in data:
        hasher.update(each)
        output.write(each)
    return TransformReport(
        path=output.name,
        output=output.name,
        digest=text(hasher.digest()),
        basis_digest=text(plain(table)),
        file_bytes=header.file_size,
        basis_bytes=len(table),
        captures=len(captures),
        tokens=tokens,
        skip=setting.skip,
        weights=made.weights,
        queries=[each.asked for each in captures] if made.weights == QUERIES else [],
        groups=[_told(each) for each in made.groups],
        held_out=held,
        notes=tuple(made.notes),
    )


def file_parts(
    made: Made, table: bytes, captures: Sequence[Given], setting: Setting
) -> tuple[Header, list[Buffer]]:
    """The header of the file, and its data."""
    metadata = common(captures) | {
        "tokens": str(max(each.tokens for each in made.groups)),
        "captures": jsontext.canonical([_named(each) for each in captures]),
        "weights": made.weights,
        "skip": str(setting.skip),
        "groups": jsontext.canonical([_told(each) for each in made.groups]),
        "held_out": jsontext.canonical(held_out(made.groups)),
    }
    return file_of(table, [each.forward for each in made.groups], metadata)


def held_out(groups: Sequence[Learned]) -> list[dict[str, Any]]:
    """Bits of an element, of the tokens that trials had not seen; nothing where there are none."""
    found = []
    for role in Role:
        own = [each for each in groups if each.group.role is role]
        if not own or any(each.held is None for each in own):
            continue
        size = sum(each.group.dimensions for each in own)
        transformed, plain = (sum(each.held[at] for each in own if each.held) for at in (0, 1))
        found.append(
            {
                "role": role.word,
                "step": STEP,
                "bits_per_element": rounded(transformed / size),
                "plain_bits_per_element": rounded(plain / size),
            }
        )
    return found


def _told(each: Learned) -> dict[str, Any]:
    group = each.group
    return {
        "role": group.role.word,
        "first_layer": group.first,
        "layers": group.layers,
        "dimensions": group.dimensions,
        "rank": group.rank,
        "tokens": each.tokens,
        "lost": rounded(each.lost),
    }


def _named(given: Given) -> dict[str, Any]:
    """What the capture says that it was made of; never where it lies."""
    name = given.capture.files.metadata.get(TEXT, "")
    fits = name and len(name) <= 256 and not LOCAL_PATH.match(name)
    return {"text": name if fits else None, "tokens": given.longest}
