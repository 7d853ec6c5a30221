"""--widen: captures of 8-bit floats, kept as they are unless they shall be quantised anew."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

from support.captures import kv_values, safetensors_bytes
from support.shell import done, kvq, left_alone, refused

FORMS = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}


@pytest.fixture(params=list(FORMS))
def capture(request, tmp_path):
    """Two layers under hf names, and the numbers that they are."""
    tensors, numbers = {}, {}
    for layer in range(2):
        for at, role in enumerate(("key", "value")):
            values = kv_values((1, 2, 40, 16), 2 * layer + at)
            codes = np.clip(values, -400, 400).astype(FORMS[request.param])
            name = f"layers.{layer}.{role}"
            tensors[name] = (request.param, codes.shape, codes.tobytes())
            numbers[name] = codes.astype(np.float16)
    path = tmp_path / "cache.safetensors"
    path.write_bytes(safetensors_bytes(tensors, {"model": "m", "dtype": "fp8"}))
    return path, numbers


def restored(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = (8 + length + each for each in entry["data_offsets"])
            assert entry["dtype"] == "F16"
            found[name] = np.frombuffer(data[start:stop], "<f2").reshape(entry["shape"])
    return found, header.get("__metadata__", {})


def test_kept_bit_for_bit(capture, tmp_path):
    """Lossless profiles take it; lossy ones say how it can be taken."""
    path, _ = capture
    for profile in ("lossless", "raw"):
        done("compress", path, "-p", profile, "-f")
        done("decompress", f"{path}.kvq", "-o", tmp_path / "back", "-f")
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
        done("verify", f"{path}.kvq", "--against", path)
    with left_alone(tmp_path):
        ran = kvq("compress", path, "-p", "int8", "-o", tmp_path / "x.kvq")
        refused(ran, 4, "E203", "--widen")


def test_quantised_when_asked(capture, tmp_path):
    """As F16 each number is exact; a lossy profile loses what it loses of F16."""
    path, numbers = capture
    done("compress", path, "--widen", "-o", tmp_path / "w.kvq")
    done("decompress", tmp_path / "w.kvq", "-o", tmp_path / "back")
    found, metadata = restored(tmp_path / "back")
    assert metadata == {"model": "m"}
    for name, values in numbers.items():
        assert np.array_equal(found[name].view("<u2"), values.view("<u2"))
    ran = done("compress", path, "--widen", "-p", "int8", "-o", tmp_path / "i.kvq", "--json")
    (result,) = json.loads(ran.out)["results"]
    assert result["source_bytes"] == 2 * sum(each.size for each in numbers.values())
    assert "taken as F16" in result["notes"][-1]
    done("verify", tmp_path / "i.kvq", "--against", path)
    done("stats", tmp_path / "i.kvq", "--against", path)
    done("decompress", tmp_path / "i.kvq", "-o", tmp_path / "i")
    lossy, _ = restored(tmp_path / "i")
    gaps = [abs(lossy[name].astype("f8") - each) for name, each in numbers.items()]
    assert 0 < max(each.max() for each in gaps) < 0.5


def test_what_if(capture, tmp_path):
    """stats tells it without a container, attention and suggestions included."""
    path, _ = capture
    done("stats", path, "--widen", "-p", "int8", "-p", "int4", "--queries", "self")
    budget = tmp_path / "b.json"
    budget.write_text('{"max_attention_tv": 0.2, "max_relative_mse": 0.1}')
    done("stats", path, "--widen", "--suggest", "--budget", budget)
    done("compress", path, "--widen", "-o", tmp_path / "w.kvq")
    refused(kvq("stats", tmp_path / "w.kvq", "--widen"), 2, "E101", "--widen")


def test_nothing_to_widen(tmp_path):
    """Without 8-bit floats there is nothing to take so."""
    path = tmp_path / "a"
    path.write_bytes(safetensors_bytes({"key": ("F16", (1, 1, 1, 4), bytes(8))}))
    with left_alone(tmp_path):
        refused(kvq("compress", path, "--widen", "-o", tmp_path / "x"), 2, "E101", "8-bit")
