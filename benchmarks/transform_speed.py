"""transform_speed: the codec transform on one thread, next to a cast and a copy.

A group is 512 dimensions, 8 heads of 64 channels; pages are of 1,024 tokens, keys with rotary
positions and values without. Rows are made: normal numbers of which each dimension has some of
all others, and whose components are as loud as those of real caches: variances fall from 1 to a
millionth. The calibration is that of the recipe. Steps are those of about 4, 2 and 1 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import rounds
from benchmarks.codec_speed import Calls, figures, spent_in_rounds
from kvq_cli.codecs.basis import Basis, Turn
from kvq_cli.codecs.matrices import forward_name
from kvq_cli.codecs.rotary import turn_rows
from kvq_cli.codecs.transform import STEP, Transform
from kvq_cli.numerics.scratch import Scratch, Tables
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import table_spec
from kvq_cli.steps import frequencies, rotary, rounding, transforms
from kvq_cli.words import Place, Role

HEADS: Final = 8
CHANNELS: Final = 64
TOKENS: Final = 1024
DIMENSIONS: Final = HEADS * CHANNELS
PAGES: Final = 16  # 16 MiB
STEPS: Final = (0.02, 0.06, 0.16)  # of the loudest component's deviation


class TransformCalls(Calls):
    """The codec's calls, with its tables, and the bits of real pages."""

    def __init__(self, codec: Transform, spec: PageSpec, tables: Tables) -> None:
        super().__init__(codec, spec)
        self._tables = tables
        self.size = 0.0

    @property
    def bits(self) -> float:
        return self.size

    def measure(self, pages: list[Page]) -> None:
        sizes = [sum(each.nbytes for each in self.encode(page).values()) for page in pages]
        self.size = 8 * sum(sizes) / sum(page.spec.elements for page in pages)

    def _fresh(self) -> Scratch:
        return Scratch(self._tables)


def recipe() -> transforms.Transform:
    """Principal components of rows that are far from independent, weighted alike."""
    random = np.random.default_rng(5)
    basis = np.linalg.qr(random.standard_normal((DIMENSIONS, DIMENSIONS)))[0]
    variances = np.geomspace(1, 1e-6, DIMENSIONS)
    covariance = (basis * variances) @ basis.T
    mean = random.standard_normal(DIMENSIONS)
    alone = np.broadcast_to(np.eye(CHANNELS), (HEADS, CHANNELS, CHANNELS))
    weights = transforms.Weights.of(np.ascontiguousarray(alone))
    return transforms.principal(mean, covariance, weights, DIMENSIONS)


def tables_of(made: transforms.Transform) -> tuple[str, int, Tables, Turn]:
    """Digest and size of the basis table, all that the codec looks up, and the turn of keys."""
    turning = frequencies.plain(Decimal(10000), CHANNELS)
    turn = rotary.Rotary(False, turning).turn(1)
    places = [rounding.Place(role, 0, 1, HEADS, CHANNELS, number)
              for role, number in ((Role.KEY, 0), (Role.VALUE, None))]  # fmt: skip
    groups = tuple(rounding.group_of(made, each) for each in places)
    table = np.frombuffer(Basis((turn,), groups).to_bytes(), np.uint8)
    spec, forward = table_spec(table), rounding.forward_of(made)
    found: dict[str, NDArray[Any]] = {spec.digest: table}
    for number in range(len(places)):
        parts = {"matrix": forward.matrix, "in": forward.inward, "out": forward.outward}
        for name, array in parts.items():
            found[forward_name(spec.digest, number, name)] = array
    return spec.digest, table.nbytes, found, turn


def pages(made: transforms.Transform, role: Role, turn: Turn) -> list[Page]:
    """Rows of the recipe, in F16."""
    random = np.random.default_rng(7)
    found, scratch = [], Scratch()
    for number in range(PAGES):
        components = random.standard_normal((TOKENS, made.forward.shape[1]))
        rows = made.mean + components * np.sqrt(made.variances) @ made.restore
        wide = rows.reshape(TOKENS, HEADS, CHANNELS).transpose(1, 0, 2).astype(np.float32)
        place = Place(role, 0, 1, number * TOKENS)
        if role is Role.KEY:
            turn_rows(wide, turn, place.position, scratch, back=False)
        spec = PageSpec(HEADS, TOKENS, CHANNELS, DType.F16, place)
        found.append(Page(spec, wide.astype(np.float16).view(np.uint16)))
    return found


def measure(count: int) -> Iterator[dict[str, Any]]:
    """Rows: role, step, and what rows of codecs have."""
    made = recipe()
    digest, size, tables, turn = tables_of(made)
    for role in Role:
        source = pages(made, role, turn)
        floats = rounds.jobs(np.stack([page.bits.view(np.float16) for page in source]))
        calls: dict[str, Calls] = {}
        for step in STEPS:
            codec = Transform(digest, size, round(step * STEP))
            calls[f"{step}"] = call = TransformCalls(codec, source[0].spec, tables)
            call.measure(source)
        spent = spent_in_rounds(calls, source, floats, None, count)
        for step, call in calls.items():
            facts = {"codec": "transform", "role": role.word, "dimensions": DIMENSIONS}
            facts |= {"tokens": TOKENS, "step": float(step), "bits": round(call.bits, 4)}
            yield {**facts, **figures(spent[step], PAGES * source[0].spec.elements, DType.F16)}
