"""Real dumps of vLLM and LMCache, from the folder that KVQ_CAPTURES names.

Its `vllm` holds folders, called after the layout that wrote them (flashattn, cpu-backend, and
`shared_storage` for the older one), and `lmcache` files of the GDS backend.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from support.real import by_layer, floats
from support.shell import done, listing

pytestmark = pytest.mark.long

FOLDER = os.environ.get("KVQ_CAPTURES")
LAYOUTS = {"cpu-backend": "vllm_cpu", "shared_storage": "vllm_split", "flashattn": "vllm"}
HEADS = ["--meta", "head_dim=64"]


def found(kind, pattern):
    if not FOLDER:
        return [pytest.param(None, marks=pytest.mark.skip(reason="KVQ_CAPTURES is not set"))]
    paths = sorted((Path(FOLDER) / kind).glob(pattern))
    return [pytest.param(path, id=path.name) for path in paths]


def layout_of(path):
    return next(layout for word, layout in LAYOUTS.items() if word in path.name)


def told(path):
    """What a user says of it."""
    return ["--layout", layout_of(path), *HEADS]


@pytest.mark.parametrize("path", found("vllm", "*") + found("lmcache", "*.safetensors"))
def test_restored_without_a_word(path, tmp_path):
    """Nobody says what it is, and every byte comes back."""
    done("compress", path, "-o", tmp_path / "box")
    done("decompress", tmp_path / "box", "-o", tmp_path / "back")
    if path.is_dir():
        assert listing(tmp_path / "back") == listing(path)
    else:
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
    done("verify", tmp_path / "box", "--against", path)


@pytest.mark.parametrize("profile", ["lossless", "int8", "turboquant-4bit"])
@pytest.mark.parametrize("path", found("vllm", "*"))
def test_named(path, profile, tmp_path):
    """Lossy profiles take it, and what was lost is measured against it."""
    done("compress", path, *told(path), "-p", profile, "-o", tmp_path / "box")
    done("verify", tmp_path / "box", "--against", path)
    stats = done("stats", tmp_path / "box", "--against", path, "--json").result
    assert (stats["broken"], len(stats["layers"])) == ([], 60)
    if profile == "lossless":
        done("decompress", tmp_path / "box", "-o", tmp_path / "back")
        assert listing(tmp_path / "back") == listing(path)


@pytest.mark.skipif(not FOLDER, reason="KVQ_CAPTURES is not set")
def test_one_prompt_in_three_layouts(tmp_path):
    """The rows of one prompt agree: bit for bit, or, of another backend, to its rounding."""
    rows = {}
    for path in sorted((Path(FOLDER) / "vllm").iterdir()):
        box = tmp_path / f"{layout_of(path)}.kvq"
        done("compress", path, *told(path), "-o", box)
        rows[layout_of(path)] = by_layer(box, tmp_path / "hf")
    flash = rows.pop("vllm")
    for layout, others in rows.items():
        assert others.keys() == flash.keys()
        for name, (dtype, bits) in others.items():
            ours, theirs = floats(dtype, bits), floats(*flash[name])
            error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
            assert error <= (0.03 if layout == "vllm_cpu" else 0), name
