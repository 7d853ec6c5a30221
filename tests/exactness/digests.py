"""digests: what one environment makes of every codec, as JSON on standard output.

    python digests.py prepare FOLDER [--fast]     captures and profiles, written once
    python digests.py kernel                      what OpenBLAS runs on
    python digests.py run FOLDER WORK THREADS BATCH    one environment's answer, equal in all

FOLDER/captures holds the sample, and captures of subnormals, zero rows, huge rows, constant
channels and a NaN, in every dtype. FOLDER/profiles holds one profile for every codec of the
registry with its defaults, and one for every other variant of tests/support/variants.py: a codec
that is registered is tested; and one with a quality budget. A codec with tables has a profile,
and tables, for each capture. In the fast set pages are small and only the sample meets parameters
that are not defaults. A codec that asks where its pages lie has a calibration for each capture,
and short pages, since one number that it cannot hold keeps all of a page raw. Jobs are cut to
BATCH bytes: with kvq's own megabyte a small capture is one job, and threads would change nothing.

    digests   "capture profile" → content_root, file_root, and BLAKE3 of the restored file, in
              its own dtype and as F32
    floats    digest of a float32 matrix product: must differ somewhere, or nothing was varied
    integers  digest of the same product over integers: must be the same everywhere
    numpy, kernel, features    what this process really ran on
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from kvq_cli import pipeline
from kvq_cli.capture.writer import header_bytes
from kvq_cli.codecs.registry import CODECS, codec_to_json, newest
from kvq_cli.page import DType
from kvq_cli.planes import table_spec
from kvq_cli.profile import Profile, parse_profile
from kvq_cli.steps import audited, encode
from support.bases import of_layers
from support.variants import TABLES, suited, variants

LAYERS, HEADS = {"sample": 4}, {"sample": 3}  # of the others 2
CHANNELS = {"sample": 64, "F16": 80, "BF16": 128, "F32": 128}  # by stem of the capture
# Some pages of the sample break it, and are raised by what attention to its last keys becomes.
BUDGETED = {
    "rules": [{"codec": "int4"}],
    "budget": {
        "max_attention_tv": 0.03,
        "max_topk_disagreement": 0.1,
        "max_value_aggregation_mse": 0.01,
        "min_attention_cosine": 0.99,
        "ladder": [{"codec": "int8"}],
    },
}
SAMPLE = Path(__file__).parents[2] / "sample_data" / "smollm2-sample-4x3x96x64-f16.safetensors"


def corner_values(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """(L, H, T, D) float32: what a cache looks like, and what it should not look like."""
    layers, heads, tokens, channels = shape
    rng = np.random.default_rng(tokens * channels)
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= np.exp2(rng.integers(-3, 4, (layers, heads, 1, channels))).astype(np.float32)
    values[..., channels // 2] += 60
    least, most = (2.0**-24, 65504.0) if dtype is DType.F16 else (2.0**-133, 3.0e38)
    steps = rng.integers(-40, 41, (layers, heads, 2, channels))
    values[:, :, 3:5] = (steps * least).astype(np.float32)
    values[:, :, 7] = 0
    values[:, :, 9, ::3] = np.float32(most)
    values[0, 0, 11] *= np.float32(2.0**-12)
    values[0, 0, :, 1] = 0
    values[0, 0, 12, 5] = np.float32(-most)
    return values


def corner_capture(shape: tuple[int, ...], dtype: DType) -> bytes:
    """Keys and values of the corner values; a NaN in the last head of the last layer's keys."""
    header = header_bytes([(role, dtype.value, (1, *shape)) for role in ("key", "value")], {})
    data = b""
    for sign in (1, -1):
        values = corner_values(shape, dtype) * np.float32(sign)
        if sign == 1:
            values[-1, -1, -1, -1] = np.float32(np.nan)
        words = values.view(np.uint32)
        if dtype is DType.F16:
            words = values.astype(np.float16).view(np.uint16)
        elif dtype is DType.BF16:
            words = (words >> 16).astype(np.uint16)
        data += words.tobytes()
    return header + data


def prepare(folder: Path, *, fast: bool) -> None:
    captures, profiles = folder / "captures", folder / "profiles"
    captures.mkdir(parents=True)
    profiles.mkdir()
    shutil.copy(SAMPLE, captures / "sample.safetensors")
    tokens = 60 if fast else 300  # 300 is a whole page and a part of one
    for dtype in DType:
        channels = CHANNELS[dtype.value]
        data = corner_capture((2, 2, tokens, channels), dtype)
        (captures / f"{dtype.value}.safetensors").write_bytes(data)
    # Profiles cannot ask for superseded revisions.
    kinds = [kind for (name, revision), kind in CODECS.items() if revision == newest(name)]
    for kind in kinds:
        first, *others = variants(kind)
        for codec in [first, *others]:
            every = codec is first or not fast
            if codec.placed:
                for stem in CHANNELS:
                    keep_placed(profiles, codec, stem)
                continue
            if not first.tables():
                keep(profiles, codec, "all" if every else "sample")
                continue
            for stem, channels in CHANNELS.items() if every else [("sample", 64)]:
                keep(profiles, suited(codec, channels), stem)
    budgeted = {"schema": "kvq_profile_v1", "name": "budgeted", "page_tokens": 32}
    (profiles / "900-budget-all.json").write_text(json.dumps(budgeted | BUDGETED))


def keep(folder: Path, codec: Any, of: str) -> None:
    """A profile of the codec, and beside it the tables that it needs, for the captures `of`."""
    number = len(list(folder.glob("*.json")))
    rule = {"codec": {"name": codec.name, **codec_to_json(codec)["params"]}}
    profile = {"schema": "kvq_profile_v1", "name": f"p{number}", "rules": [rule]}
    path = folder / f"{number:03}-{codec.name}-{of}.json"
    path.write_text(json.dumps(profile))
    for table in codec.tables():
        np.save(path.with_suffix(f".{table.digest[7:]}.npy"), TABLES[table.digest])


def keep_placed(folder: Path, codec: Any, of: str) -> None:
    """Likewise, and beside it a calibration with groups of two layers."""
    number = len(list(folder.glob("*.json")))
    params = codec_to_json(codec)["params"] | {"basis": None, "size": None}
    rule = {"codec": {"name": codec.name, **params}}
    profile = {"schema": "kvq_profile_v1", "name": f"p{number}", "rules": [rule], "page_tokens": 8}
    path = folder / f"{number:03}-{codec.name}-{of}.json"
    path.write_text(json.dumps(profile))
    pairs = CHANNELS[of] // 2 if codec.turned else 0
    made = of_layers(LAYERS.get(of, 2), HEADS.get(of, 2), CHANNELS[of], each=2, pairs=pairs)
    made.write(path.with_suffix(".kvqcal"))


def kept(path: Path) -> Profile:
    """The profile with its tables."""
    arrays = map(np.load, sorted(path.parent.glob(f"{path.stem}.*.npy")))
    tables = {table_spec(array).digest: array for array in arrays}
    return replace(parse_profile(json.loads(path.read_text())), tables=tables)


def digest(path: Path) -> str:
    return str(blake3(path.read_bytes()).hexdigest())


def round_trips(folder: Path, work: Path, threads: int) -> dict[str, list[str]]:
    found = {}
    box, back = work / "box.kvq", work / "back"
    for capture in sorted((folder / "captures").iterdir()):
        for profile in sorted((folder / "profiles").glob("*.json")):
            if not profile.stem.endswith(("-all", f"-{capture.stem}")):
                continue
            terms = {"threads": threads, "force": True}
            given = {"profiles": [kept(profile)]}
            if profile.with_suffix(".kvqcal").exists():
                calibration = profile.with_suffix(".kvqcal")
                given |= {"calibration": calibration, "meta": {"rope_state": "post"}}
            report = pipeline.compress(capture, box, **given, **terms)
            answer = [report.content_root, report.file_root]
            for dtype in (None, DType.F32):
                pipeline.decompress(box, back, dtype=dtype, **terms)
                answer.append(digest(back))
            found[f"{capture.stem} {profile.stem}"] = answer
    return found


def products() -> tuple[str, str]:
    """Digests of float32 matrix products: of random numbers, and of integers below 2**24."""
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((2, 256, 256), dtype=np.float32)
    m, n = rng.integers(-200, 201, (2, 256, 256)).astype(np.float32)
    return blake3((a @ b).tobytes()).hexdigest(), blake3((m @ n).tobytes()).hexdigest()


def kernel() -> str:
    """The core type whose kernels OpenBLAS runs; empty where NumPy brings no OpenBLAS."""
    folder = Path(np.__file__).parents[1] / "numpy.libs"
    for path in sorted(folder.glob("*openblas*")):
        library = ctypes.CDLL(str(path))
        for name in ("scipy_openblas_get_corename64_", "scipy_openblas_get_corename"):
            if hasattr(library, name):
                ask = getattr(library, name)
                ask.restype = ctypes.c_char_p
                return str(ask().decode())
    return ""


def features() -> list[str]:
    """The CPU features that this NumPy can do without, and uses in this process."""
    from numpy._core import _multiarray_umath as core

    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]


def run(folder: Path, work: Path, threads: int, batch: int) -> dict[str, Any]:
    # Nothing here outlives the test, so nothing is forced to the disk; no byte depends on it.
    os.fsync = lambda fd: None
    for step in (encode, audited):
        assert isinstance(step.BATCH, int)
        step.BATCH = batch
    floats, integers = products()
    ran_on = {"numpy": np.__version__, "kernel": kernel(), "features": features()}
    canary = {"floats": floats, "integers": integers}
    return {**ran_on, **canary, "digests": round_trips(folder, work, threads)}


def main(story: str, *words: str) -> None:
    if story == "prepare":
        prepare(Path(words[0]), fast="--fast" in words)
    elif story == "kernel":
        # The products are run so that a kernel this CPU cannot run shows itself.
        json.dump({"kernel": kernel(), "integers": products()[1]}, sys.stdout)
    elif story == "run":
        json.dump(run(Path(words[0]), Path(words[1]), int(words[2]), int(words[3])), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
