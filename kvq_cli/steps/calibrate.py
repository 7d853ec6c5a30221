"""calibrate: norms, outliers and recommendations of a capture, measured layer by layer.

Spec: formats/calibration.md.

    outlier row       its norm is more than 3 times the mean of its head
    outlier channel   its root mean square is more than 5 times the median of its head
    axis              "channel" where more than a quarter of the energy lies in the channels'
                      means, else "token"
    first_tokens      up to the last of the first 16 tokens whose values (without any, keys) have
                      less than half the mean norm: attention sinks look so
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture import Capture
from kvq_cli.capture.slab import Slab
from kvq_cli.errors import ProfileError, UsageError
from kvq_cli.profile import Profile, load_calibration
from kvq_cli.profile.calibration import LISTED, Calibration, RoleSummary
from kvq_cli.quality.distortion import rounded
from kvq_cli.record import record
from kvq_cli.steps.facts import check_rows
from kvq_cli.steps.probe import read_wide
from kvq_cli.steps.work import Progress, in_order, workers
from kvq_cli.words import Role

ROW: Final = 3.0
CHANNEL: Final = 5.0
MEANS: Final = 0.25
SINKS: Final = 16
SMALL: Final = 0.5
BLOCK: Final = 1 << 20  # elements at a time
MEMBER: Final = "/calibration_digest"


@record(eq=False)
class _Layer:
    """Sums of one slab."""

    rows: int
    norms: float  # their sum
    largest: float
    outliers: int
    channels: list[tuple[int, int, int]]
    energy: float
    mean_energy: float
    first: NDArray[np.float64]  # mean norm of each of the first tokens, over the mean of all


def calibrated(capture: Capture, threads: int, progress: Progress) -> Calibration:
    """What the capture's rows are like; without a recommendation of bits."""
    check_rows(capture)
    slabs = [slab for _, slab in sorted(capture.slabs.items())]
    found: dict[Role, list[_Layer]] = defaultdict(list)
    done, total = 0, sum(slab.heads * slab.tokens * slab.row_size for slab in slabs)
    with workers(threads) as pool:
        measured = in_order(pool, lambda slab: _measured(capture, slab), slabs)
        for slab, layer in zip(slabs, measured, strict=True):
            found[slab.role].append(layer)
            done += slab.heads * slab.tokens * slab.row_size
            progress(done, total)
    channels = {slab.role: slab.channels for slab in slabs}
    return Calibration(
        layers=len(capture.layers),
        kv_heads=tuple(layer.heads for layer in capture.layers),
        roles={role: _summary(channels[role], layers) for role, layers in found.items()},
        first_tokens=_sinks(found.get(Role.VALUE) or found[Role.KEY]),
        profile=None,
        bits_per_element=None,
    )


def _measured(capture: Capture, slab: Slab) -> _Layer:
    sums = np.zeros((slab.heads, slab.channels))
    squares = np.zeros_like(sums)
    norms = np.empty((slab.heads, slab.tokens))
    step = max(1, BLOCK // (slab.heads * slab.channels))
    for start in range(0, slab.tokens, step):
        stop = min(start + step, slab.tokens)
        rows = read_wide(capture.source, slab, start, stop)
        sums += rows.sum(axis=1)
        rows *= rows
        squares += rows.sum(axis=1)
        norms[:, start:stop] = np.sqrt(rows.sum(axis=2))
    means = norms.mean(axis=1, keepdims=True)
    loud = np.sqrt(squares)
    usual = np.median(loud, axis=1, keepdims=True)
    places = np.argwhere(loud > CHANNEL * usual).tolist() if slab.channels > 1 else []
    return _Layer(
        rows=norms.size,
        norms=float(norms.sum()),
        largest=float(norms.max()),
        outliers=int((norms > ROW * means).sum()),
        channels=[(slab.layer, head, channel) for head, channel in places],
        energy=float(squares.sum()),
        mean_energy=float((sums * sums).sum() / slab.tokens),
        first=(norms[:, :SINKS] / np.where(means > 0, means, 1)).mean(axis=0),
    )


def _summary(channels: int, layers: list[_Layer]) -> RoleSummary:
    rows, energy = sum(each.rows for each in layers), sum(each.energy for each in layers)
    outliers = sorted({place for each in layers for place in each.channels})
    share = sum(each.mean_energy for each in layers) / energy if energy else 0.0
    return RoleSummary(
        head_dim=channels,
        rows=rows,
        mean_norm=rounded(sum(each.norms for each in layers) / rows),
        max_norm=rounded(max(each.largest for each in layers)),
        outlier_rows=sum(each.outliers for each in layers),
        outlier_channels=tuple(outliers[:LISTED]),
        mean_energy=rounded(share),
        axis="channel" if share > MEANS else "token",
    )


def _sinks(layers: list[_Layer]) -> int:
    tokens = min(len(each.first) for each in layers)
    small = np.mean([each.first[:tokens] for each in layers], axis=0) < SMALL
    return int(np.flatnonzero(small).max(initial=-1)) + 1


def held_to_calibration(
    capture: Capture, profiles: Iterable[Profile], source: str | Path | None
) -> str | None:
    """The digest of the calibration that profiles name; ProfileError E402 unless it is `source`."""
    named = {profile.calibration_digest for profile in profiles} - {None}
    if not named:
        if source is not None:
            raise UsageError("E101", "--calibration: no profile names one")
        return None
    told = " and ".join(sorted(map(str, named)))
    if source is None:
        found = f"the profile is for the calibration {told}; give its file with --calibration"
        raise ProfileError("E402", found, MEMBER)
    calibration = load_calibration(source)
    if named != {calibration.digest()}:
        found = f"the profile is for {told}, {source} is {calibration.digest()}"
        raise ProfileError("E402", found, MEMBER)
    heads = tuple(layer.heads for layer in capture.layers)
    channels = {slab.role: slab.channels for slab in capture.slabs.values()}
    told_channels = {role: each.head_dim for role, each in calibration.roles.items()}
    if calibration.kv_heads != heads or told_channels != channels:
        raise ProfileError("E402", "the calibration is for other layers, heads or head_dim", MEMBER)
    return calibration.digest()
