"""points: what a profile makes of a capture: bits an element, and what attention notices of it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvq_cli import pipeline
from kvq_cli.profile import Profile, load_profile
from kvq_cli.profile.parse import parse_profile

WITHIN: Final = 1.01  # how near a step is found
FINEST: Final = 64
COARSEST: Final = 65536
INTERPOLATED: Final = 5  # tries, before a bracket is simply halved


@dataclass(frozen=True)
class Case:
    """A capture; its queries lie beside it."""

    capture: Path

    @property
    def queries(self) -> Path:
        return self.capture.with_suffix(".query.safetensors")


@dataclass(frozen=True)
class Point:
    """Bits an element of the whole file; total variation and cosine are means over all heads."""

    bits: float
    tv: float
    cosine: float

    def as_good_as(self, other: Point) -> bool:
        return self.tv <= other.tv and self.cosine >= other.cosine


def transform(step: int, *, first: int = 4) -> Profile:
    """The codec transform everywhere, but for some first tokens."""
    return _profile({"name": "transform", "step": step}, 1024, first)


def plain(bits: int) -> Profile:
    """turboquant_mse as it was published: nothing is centred; 4 tokens stay raw."""
    return _profile({"name": "turboquant_mse", "bits": bits, "center": False}, 256, 4)


def builtin(name: str) -> Profile:
    found = load_profile(name)
    assert isinstance(found, Profile)
    return found


def _profile(codec: Mapping[str, object], tokens: int, first: int) -> Profile:
    return parse_profile(
        {
            "schema": "kvq_profile_v1",
            "name": str(codec["name"]),
            "page_tokens": tokens,
            "rules": [{"codec": codec}],
            "protected": {"first_tokens": first},
        }
    )


def measure(case: Case, profile: Profile, calibration: Path | None = None) -> Point:
    """A container, measured; it refers to the calibration where there is one."""
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder) / "a.kvq"
        _compress(case, box, profile, calibration, refer=calibration is not None)
        report = pipeline.stats(
            box, against=case.capture, queries=case.queries, calibration=calibration, threads=1
        )
    found = report.attention[-1]  # all layers and heads
    bits = 8 * report.file_bytes / sum(role["elements"] for role in report.roles)
    return Point(bits, found["attention_tv"], found["attention_cosine"])


def share_of_referring(case: Case, profile: Profile, calibration: Path) -> float:
    """The size of a file that refers to its calibration, by that of one that holds the table."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = [
            _compress(case, Path(folder) / "a.kvq", profile, calibration, refer=refer)
            for refer in (True, False)
        ]
    return sizes[0] / sizes[1]


def _compress(
    case: Case, box: Path, profile: Profile, calibration: Path | None, *, refer: bool
) -> int:
    terms: dict[str, Any] = {"profiles": [profile], "calibration": calibration, "force": True}
    return pipeline.compress(case.capture, box, refer=refer, threads=1, **terms).file_bytes


class Steps:
    """Points of one capture and calibration by the step; each is measured once."""

    def __init__(self, at: Callable[[int], Point]) -> None:
        self._at = at
        self.known: dict[int, Point] = {}

    def __call__(self, step: int) -> Point:
        if step not in self.known:
            self.known[step] = self._at(step)
        return self.known[step]

    def coarsest(self, reference: Point) -> int | None:
        """The coarsest step, to 1 %, at which a point is as good as another; None without one.

        What is lost grows with the step: between a step that is fine enough and one that is too
        coarse, the next is where both measures, drawn straight in logarithms, say.
        """
        good = [step for step, each in self.known.items() if each.as_good_as(reference)]
        low = max(good, default=FINEST)
        if not good and not self(FINEST).as_good_as(reference):
            return None
        high = min((step for step in self.known if step > low), default=COARSEST)
        if high not in self.known and self(high).as_good_as(reference):
            return high
        for turn in range(64):
            if high <= max(low * WITHIN, low + 1):
                break
            step = self._between(low, high, reference, turn)
            if self(step).as_good_as(reference):
                low = step
            else:
                high = step
        return low

    def _between(self, low: int, high: int, reference: Point, turn: int) -> int:
        share = 0.5
        if turn < INTERPOLATED:
            one, other = self(low), self(high)
            found = [
                _crossing(one.tv, other.tv, reference.tv),
                _crossing(1 - one.cosine, 1 - other.cosine, 1 - reference.cosine),
            ]
            share = min(found)
        guess = low * (high / low) ** share
        # A little to either side by turns: both ends come near.
        guess *= WITHIN ** (-0.4 if turn % 2 == 0 else 0.4)
        return max(low + 1, min(high - 1, round(guess)))


def _crossing(low: float, high: float, wanted: float) -> float:
    """Where a straight line between two errors, in logarithms, meets a third; from 0 to 1."""
    if not 0 < low < high or wanted <= 0:
        return 0.5
    return min(1.0, max(0.0, math.log(wanted / low) / math.log(high / low)))
