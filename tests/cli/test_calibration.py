"""Calibrations: measured, named by profiles, checked by compress and verify."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kvq_cli.errors import ProfileError
from kvq_cli.profile import Calibration
from support.captures import canonical_capture, kv_bits, per_layer_capture, safetensors_bytes
from support.real import floats, tensors
from support.shell import done, kvq, left_alone, refused

PROFILE = {"schema": "kvq_profile_v1", "name": "calibrated", "rules": [{"codec": "int8"}]}


@pytest.fixture
def folder(tmp_path):
    """A capture, its calibration, and a profile that names it."""
    (tmp_path / "cache").write_bytes(canonical_capture(tokens=90, channels=16, heads=3))
    told = calibrated(tmp_path, "-o", tmp_path / "c.json")
    digest = done("inspect", tmp_path / "c.json", "--json").result["digest"]
    assert told is None
    (tmp_path / "p.json").write_text(json.dumps(PROFILE | {"calibration_digest": digest}))
    return tmp_path


def calibrated(folder, *more):
    ran = done("profile", "calibrate", folder / "cache", *more)
    return json.loads(ran.out) if ran.out else None


def test_figures_are_those_of_plain_numpy(folder):
    """Norms, outliers and the energy of means, over all layers and heads."""
    told = calibrated(folder)
    for name, dtype, bits in tensors(folder / "cache"):
        rows = floats(dtype, bits)[0]
        norms, found = np.linalg.norm(rows, axis=-1), told[name]
        assert (found["rows"], found["head_dim"]) == (norms.size, 16)
        assert found["mean_norm"] == pytest.approx(norms.mean(), rel=1e-5)
        assert found["max_norm"] == pytest.approx(norms.max(), rel=1e-5)
        means = norms.mean(axis=-1, keepdims=True)
        assert found["outlier_rows"] == int((norms > 3 * means).sum())
        loud = np.sqrt((rows**2).mean(axis=2))
        places = np.argwhere(loud > 5 * np.median(loud, axis=2, keepdims=True)).tolist()
        assert found["outlier_channels"] == places != []
        share = (rows.mean(axis=2) ** 2).sum() * 90 / (rows**2).sum()
        assert found["mean_energy"] == pytest.approx(share, rel=1e-5)
        assert found["axis"] == ("channel" if share > 0.25 else "token")
    assert (told["layers"], told["kv_heads"]) == (2, [3, 3])
    assert (told["profile"], told["bits_per_element"]) == (None, None)


def test_sinks_and_means_are_seen(tmp_path):
    """Three small values in front; keys that are nearly constant."""
    shape = (1, 1, 2, 40, 8)
    keys = kv_bits(shape, "F32").view("<f4") * np.float32(0.1) + np.float32(5)
    values = np.ones(shape, "<f4")
    values[..., :3, :] = 0.1
    cache = {"key": ("F32", shape, keys.tobytes()), "value": ("F32", shape, values.tobytes())}
    (tmp_path / "cache").write_bytes(safetensors_bytes(cache))
    told = calibrated(tmp_path)
    assert told["first_tokens"] == 3
    assert told["key"]["axis"] == "channel"
    assert told["value"]["mean_norm"] == pytest.approx(np.sqrt(8) * (37 + 0.3) / 40, rel=1e-5)


def test_a_budget_gives_bits(folder):
    """The built-in profile that stats --suggest finds, and what its pages take."""
    (folder / "b.json").write_text('{"max_relative_mse": 0.001}')
    told = calibrated(folder, "--budget", folder / "b.json")
    call = ["stats", folder / "cache", "--suggest", "--budget", folder / "b.json", "--json"]
    best = done(*call).result
    assert told["profile"] == best["profile"]["name"]
    assert told["bits_per_element"] == best["bits_per_element"] > 4


def test_compress_and_verify_hold_to_it(folder):
    """The header records the digest; verify tells a container that was made without."""
    call = ["compress", folder / "cache", "-p", folder / "p.json"]
    with left_alone(folder):
        refused(kvq(*call), 1, "E402", "--calibration")
    done(*call, "--calibration", folder / "c.json")
    done("verify", folder / "cache.kvq", "--calibration", folder / "c.json")
    done("compress", folder / "cache", "-f", "-p", "int8")
    ran = kvq("verify", folder / "cache.kvq", "--calibration", folder / "c.json")
    refused(ran, 1, "E807", "calibration is none")
    report = done(
        "stats", folder / "cache", "-p", folder / "p.json", "--json",
        "--calibration", folder / "c.json",
    ).result  # fmt: skip
    assert report["profiles"][0]["name"] == "calibrated"


def test_another_calibration_is_refused(folder):
    """Both digests are told; so is a capture of another shape."""
    other = json.loads((folder / "c.json").read_text()) | {"first_tokens": 9}
    (folder / "o.json").write_text(json.dumps(other))
    call = ["compress", folder / "cache", "-p", folder / "p.json", "--calibration"]
    with left_alone(folder):
        refused(kvq(*call, folder / "o.json"), 1, "E402", "the profile is for blake3:")
        refused(kvq(*call, folder / "p.json"), 3, "E401", "is no kvq_calibration_v1")
        refused(kvq(*call, folder / "none.json"), 6, "E601")
    (folder / "cache").write_bytes(canonical_capture(tokens=9, channels=8, heads=3))
    refused(kvq(*call, folder / "c.json"), 1, "E402", "other layers, heads or head_dim")
    call = ["compress", folder / "cache", "-p", "int8", "--calibration", folder / "c.json"]
    refused(kvq(*call), 2, "E101", "--calibration")


def test_it_is_no_profile(folder):
    """Where a profile is asked for, a calibration is named for what it is."""
    ran = kvq("compress", folder / "cache", "-p", folder / "c.json")
    refused(ran, 3, "E401", "kvq_calibration_v1 is no profile")
    text = done("inspect", folder / "c.json").out
    assert text.startswith(f"{folder / 'c.json'}: kvq_calibration_v1 blake3:")


def test_odd_captures(tmp_path):
    """Ragged layers, one role, one token, one channel, numbers that are not finite."""
    broken = bytearray(canonical_capture(tokens=3))
    broken[-2:] = b"\xff\x7f"
    for cache in (
        per_layer_capture(tokens=(1, 40)),
        canonical_capture(roles=["key"], tokens=1),
        canonical_capture(channels=1),
        bytes(broken),
        safetensors_bytes({"key": ("F16", (1, 1, 1, 2, 4), bytes(16))}),
    ):
        (tmp_path / "cache").write_bytes(cache)
        told = calibrated(tmp_path)
        assert Calibration.from_json(told).to_json() == told


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/layers", 3),
        ("/layers", 0),
        ("/kv_heads", [3]),
        ("/kv_heads", [3, 0]),
        ("/kv_heads", [3, True]),
        ("/first_tokens", -1),
        ("/profile", 3),
        ("/bits_per_element", "4"),
        ("/more", 1),
        ("/key/rows", 0),
        ("/key/mean_norm", -1),
        ("/key/mean_norm", None),
        ("/key/axis", "row"),
        ("/key/outlier_channels", [[1, 2]]),
        ("/key/outlier_channels", [[1, 2, -3]]),
        ("/key/more", 1),
        ("/value", 7),
    ],
)
def test_wrong_members(folder, pointer, value):
    """Each is told by its pointer."""
    told = json.loads((folder / "c.json").read_text())
    *path, last = pointer[1:].split("/")
    place = told[path[0]] if path else told
    place[last] = value
    with pytest.raises(ProfileError) as refusal:
        Calibration.from_json(told)
    assert refusal.value.error_id == "E401"


def test_options_that_would_do_nothing(folder):
    """Queries and samples are for budgets."""
    ran = kvq("profile", "calibrate", folder / "cache", "--sample", 3)
    refused(ran, 2, "E101", "--budget")


def test_a_calibration_is_held_to_its_page(folder):
    """Channels ascend, at most 1,024 of them, and no figure is negative."""
    told = calibrated(folder)
    path = folder / "c.json"
    for channels, error in (
        ([[1, 0, 0], [0, 0, 0]], "E401"),
        ([[0, 0, 0], [0, 0, 0]], "E401"),
        ([[0, 0, at] for at in range(1025)], "E404"),
    ):
        path.write_text(json.dumps(told | {"key": told["key"] | {"outlier_channels": channels}}))
        refused(kvq("profile", "check", path), 7 if error == "E404" else 3, error, "/key/outlier")
    path.write_text(json.dumps(told | {"bits_per_element": -1}))
    refused(kvq("profile", "check", path), 3, "E401", "/bits_per_element")
