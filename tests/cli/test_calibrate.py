"""kvq calibrate: captures in, one calibration out, and everything that stands against it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kvq_cli.steps.kvqcal import load_kvqcal
from kvq_cli.words import Role
from support.calibrating import (
    CHANNELS,
    HEADS,
    LAYERS,
    METADATA,
    THETA,
    capture,
    queries,
    rows,
    turned,
    write_captures,
)
from support.captures import canonical_capture, per_layer_capture, safetensors_bytes
from support.shell import done, kvq, left_alone, process, refused

SIZE = HEADS * CHANNELS


def calibrated(folder, *more, count=2, tokens=200, **how):
    paths = write_captures(folder, count, tokens, **how)
    target = folder / "m.kvqcal"
    ran = done("calibrate", *paths, "-o", target, "--json", "-T", 1, *more)
    return load_kvqcal(target), ran.result


def matrices(found, number):
    group, forward = found.basis.groups[number], found.forward[number]
    exponents = forward.inward[:, None].astype(int) - forward.outward.astype(int)
    matrix = np.ldexp(forward.matrix.astype(float), exponents)
    return group, matrix, np.ldexp(group.restore.astype(float), -group.exponents.astype(int))


@pytest.mark.parametrize("style", ["half-rotated", "interleaved"])
@pytest.mark.parametrize("layers", [1, 3])
def test_other_rows_of_the_model_are_restored(tmp_path, style, layers):
    """Few components hold rows of a text that was not among the captures, their turn undone."""
    told = METADATA | {"rope_style": style}
    found, report = calibrated(tmp_path, "--layers", layers, metadata=told)
    assert len(found.basis.groups) == 2 * LAYERS // layers
    assert {each.turn for each in found.basis.groups if each.role is Role.VALUE} == {None}
    (turn,) = found.basis.turns
    assert (turn.interleaved, turn.pairs) == (style == "interleaved", CHANNELS // 2)
    for number, told_group in enumerate(report["groups"]):
        group, matrix, back = matrices(found, number)
        assert told_group["rank"] == group.rank
        other = rows(77, 300, group.role)[group.first : group.first + layers]
        flat = other.transpose(2, 0, 1, 3).reshape(300, -1) - group.means
        coefficients = flat @ matrix
        np.testing.assert_allclose(coefficients @ back, flat, atol=0.02 * np.abs(flat).max())
        # Six axes and little noise: what is behind them is nearly nothing.
        energy = (coefficients**2).mean(axis=0)
        assert energy[6:].sum() < 0.05 * energy.sum()


def test_turned_keys_and_such_as_are_not_yet(tmp_path):
    """A capture before its turn gives the same transform, without one."""
    after, _ = calibrated(tmp_path, "--weights", "variance")
    for path in tmp_path.iterdir():
        path.unlink()
    before, _ = calibrated(
        tmp_path, "--weights", "variance", metadata=METADATA | {"rope_state": "pre"}
    )
    assert before.basis.turns == ()
    assert {each.turn for each in before.basis.groups} == {None}
    for one, other in zip(after.basis.groups, before.basis.groups, strict=True):
        np.testing.assert_allclose(one.means, other.means, rtol=1e-4, atol=1e-4)


def test_what_the_report_and_the_file_tell(tmp_path):
    """Figures of both agree, with inspect too; no path is in the file."""
    found, report = calibrated(tmp_path)
    path = tmp_path / "m.kvqcal"
    assert report["digest"] == found.digest
    assert report["file_bytes"] == path.stat().st_size
    assert (report["captures"], report["tokens"], report["skip"]) == (2, 2 * 196, 4)
    assert report["weights"] == "queries"
    assert report["queries"] == ["a.query.safetensors", "b.query.safetensors"]
    assert {each["role"] for each in report["held_out"]} == {"key", "value"}
    for each in report["held_out"]:
        assert 0 < each["bits_per_element"] < each["plain_bits_per_element"]
    told = found.metadata
    assert told["tokens"] == "392"
    assert json.loads(told["captures"]) == [{"text": "made up", "tokens": 200}] * 2
    assert json.loads(told["groups"]) == report["groups"]
    assert json.loads(told["held_out"]) == report["held_out"]
    assert (told["model"], told["rope_theta"]) == ("none", str(THETA))
    assert str(tmp_path).encode() not in path.read_bytes()
    seen = done("inspect", path, "--json").result
    assert (seen["kind"], seen["digest"]) == ("transform", found.digest)
    assert seen["basis_digest"] == report["basis_digest"]
    assert [each["rank"] for each in seen["groups"]] == [each["rank"] for each in report["groups"]]
    assert "kvq_transform_v1" in done("inspect", path).out


def test_the_same_captures_give_the_same_file(tmp_path):
    """On one machine to the byte, whatever the threads, and to standard output too."""
    found, _ = calibrated(tmp_path)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    again = tmp_path / "again.kvqcal"
    done("calibrate", *paths, "-o", again, "-T", 3)
    assert again.read_bytes() == (tmp_path / "m.kvqcal").read_bytes()
    piped = process("calibrate", *paths, "-o", "-", "-T", "1")
    assert piped.out == again.read_bytes()
    assert found.digest in piped.err


def test_means_are_those_of_numpy(tmp_path):
    """Of all tokens behind the skipped ones, keys turned back."""
    found, _ = calibrated(tmp_path, "--skip", 10)
    for group in found.basis.groups:
        parts = [rows(seed, 200, group.role)[group.first][:, 10:] for seed in range(2)]
        expected = np.concatenate(parts, axis=1).mean(axis=1).reshape(-1)
        np.testing.assert_allclose(group.means, expected, rtol=1e-4, atol=1e-4)


def test_rank_is_a_share(tmp_path):
    _, report = calibrated(tmp_path, "--rank", "0.25")
    assert {each["rank"] for each in report["groups"]} == {SIZE // 4}
    assert all(each["lost"] > 0 for each in report["groups"])


def test_auto_joins_layers_that_belong_together(tmp_path):
    """Six axes for three layers: one group of them needs fewer coefficients than three."""
    _, report = calibrated(tmp_path, "--layers", "auto", count=3, tokens=400)
    assert [(each["role"], each["layers"]) for each in report["groups"]] == [
        ("key", 3),
        ("value", 3),
    ]


@pytest.mark.parametrize("weights", ["self", "variance"])
def test_weights_without_queries(tmp_path, weights):
    """As asked; unasked, a head's own size counts, and a note says so."""
    _, report = calibrated(tmp_path, "--weights", weights, asked=False)
    assert (report["weights"], report["queries"]) == (weights, [])
    _, report = calibrated(tmp_path, "-f", asked=False)
    assert report["weights"] == "variance"
    assert any("no queries" in note for note in report["notes"])


def test_queries_may_be_named(tmp_path):
    """Once for each capture; those in the capture need no name."""
    (path,) = write_captures(tmp_path, 1, asked=False)
    asked = tmp_path / "asked"
    asked.write_bytes(queries(5, range(100, 150, 5)))
    target = tmp_path / "m.kvqcal"
    ran = done("calibrate", path, "--queries", asked, "-o", target, "--json")
    assert ran.result["queries"] == ["asked"]
    assert "for each" in kvq("calibrate", path, path, "--queries", asked, "-o", target, "-f").err


def test_few_tokens_are_told(tmp_path):
    _, report = calibrated(tmp_path, tokens=30, count=1)
    assert any("fewer than 4 tokens" in note for note in report["notes"])


def test_tiny_captures_have_nothing_to_hold_out(tmp_path):
    """Seven tokens, of which the first four are left out."""
    _, report = calibrated(tmp_path, tokens=7, count=1, asked=False)
    assert report["held_out"] == []
    assert report["groups"][0]["tokens"] == 3


def test_layers_of_other_lengths(tmp_path):
    """Ragged layers are groups of their own, and positions count from the longest's end."""
    path, target = tmp_path / "r.safetensors", tmp_path / "m.kvqcal"
    path.write_bytes(per_layer_capture(tokens=(90, 90, 40), channels=8))
    meta = ["--meta", "rope_state=post", "--meta", "rope_theta=10000"]
    report = done("calibrate", path, *meta, "-o", target, "--layers", 3, "--json").result
    told = [(each["first_layer"], each["layers"], each["tokens"]) for each in report["groups"]]
    assert told == [(0, 2, 86), (2, 1, 40)] * 2


def test_short_layers_hold_the_last_positions(tmp_path):
    """Their keys are turned back by where they stand in the text, not in the layer."""
    path, target = tmp_path / "s.safetensors", tmp_path / "m.kvqcal"
    tensors = {}
    for layer, first in enumerate((0, 50)):
        key, value = (rows(0, 80, role)[layer][None, :, first:] for role in (0, 1))
        key = turned(key, range(first, 80))
        for name, each in (("key", key), ("value", value)):
            data = each.astype("<f4").tobytes()
            tensors[f"layers.{layer}.{name}"] = ("F32", each.shape, data)
    path.write_bytes(safetensors_bytes(tensors, METADATA))
    done("calibrate", path, "-o", target)
    short = load_kvqcal(target).basis.groups[1]
    assert (short.role, short.first) == (Role.KEY, 1)
    expected = rows(0, 80, 0)[1][:, 50:].mean(axis=1).reshape(-1)
    np.testing.assert_allclose(short.means, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "code", "error", "message"),
    [
        (["a", "-o", "m"], 2, "E101", "rope_state"),
        (["a", "--meta", "rope_state=post", "-o", "m"], 2, "E101", "rope_theta"),
        (["a", "--meta", "rope_state=none"], 2, "E101", "-o"),
        (["a", "--meta", "rope_state=none", "-o", "a", "-f"], 5, "E104", "input"),
        (["a", "b", "--meta", "rope_state=none", "-o", "m"], 3, "E202", "kv heads"),
        (["a", "c", "--meta", "rope_state=none", "-o", "m"], 3, "E202", "layers"),
        (["a", "--meta", "rope_state=none", "-o", "m", "--weights", "queries"], 1, "E208", "no q"),
        (["a", "--meta", "rope_state=none", "-o", "m", "--weights", "mine"], 2, "E101", "weights"),
        (["a", "--meta", "rope_state=none", "-o", "m", "--layers", "0"], 2, "E101", "layers"),
        (["a", "--meta", "rope_state=none", "-o", "m", "--rank", "0"], 2, "E101", "rank"),
        (["a", "--meta", "rope_state=none", "-o", "m", "--skip", "5"], 3, "E206", "tokens"),
        (["a", "--meta", "rope_state=none", "-o", "m", "--skip", "-1"], 2, "E101", "skip"),
        (["-", "-o", "m"], 2, "E101", "standard input"),
        (["missing", "-o", "m"], 6, "E601", "missing"),
        (["a", "--meta", "rope_state=none", "--queries", "a", "-o", "m"], 1, "E208", "query"),
    ],
)
def test_refusals(tmp_path, words, code, error, message):
    """One line, and nothing is written."""
    (tmp_path / "a").write_bytes(canonical_capture(tokens=5))
    (tmp_path / "b").write_bytes(canonical_capture(tokens=5, heads=3))
    (tmp_path / "c").write_bytes(canonical_capture(tokens=5, layers=3))
    named = [tmp_path / word if word in ("a", "b", "c", "m", "missing") else word for word in words]
    with left_alone(tmp_path):
        refused(kvq("calibrate", *named), code, error, message)


def test_captures_that_are_turned_otherwise(tmp_path):
    """The same model has one base."""
    one, two = write_captures(tmp_path, 2)
    two.write_bytes(capture(1, 200, METADATA | {"rope_theta": "500"}))
    ran = kvq("calibrate", one, two, "-o", tmp_path / "m.kvqcal")
    refused(ran, 3, "E202", "rotary positions")


def test_a_text_that_is_a_path_is_not_told(tmp_path):
    found, _ = calibrated(tmp_path, metadata=METADATA | {"text": "/home/me/text"})
    assert {each["text"] for each in json.loads(found.metadata["captures"])} == {None}


def test_an_undamaged_copy_is_needed(tmp_path):
    """inspect refuses what is no calibration any more."""
    calibrated(tmp_path)
    path = tmp_path / "m.kvqcal"
    path.write_bytes(path.read_bytes()[:-1])
    refused(kvq("inspect", path), 3, "E401")


def test_positions_of_the_turn(tmp_path):
    """The basis table turns as the capture's metadata says, far from the start too."""
    found, _ = calibrated(tmp_path)
    (turn,) = found.basis.turns
    row = np.random.default_rng(0).standard_normal((1, CHANNELS))
    cosines, sines = turn.angles(99_999, 1)
    one, other = row[:, : CHANNELS // 2], row[:, CHANNELS // 2 :]
    got = np.concatenate([one * cosines - other * sines, other * cosines + one * sines], axis=1)
    np.testing.assert_allclose(got, turned(row, [99_999]), atol=1e-5)
