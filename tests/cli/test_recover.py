"""recover: what is intact of a damaged container, and what the other commands make of the rest."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from kvq_cli import KvqError, Role, open_container
from support.captures import canonical_capture
from support.shell import done, error_line, kvq, process, refused

LAYERS, HEADS, TOKENS, CHANNELS = 3, 2, 70, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A capture, its container, and one that was cut off in the middle."""
    root = tmp_path_factory.mktemp("recover")
    capture = canonical_capture(layers=LAYERS, heads=HEADS, tokens=TOKENS, channels=CHANNELS)
    (root / "cache").write_bytes(capture)
    done("compress", root / "cache", "-p", "int8")
    data = (root / "cache.kvq").read_bytes()
    (root / "torn.kvq").write_bytes(data[: len(data) // 2])
    return root


@pytest.fixture
def partial(folder, tmp_path):
    """What is left of the torn one."""
    ran = kvq("recover", folder / "torn.kvq", "-o", tmp_path / "part.kvq", "--json")
    assert ran.code == 1, ran.err
    return tmp_path / "part.kvq"


def partly(ran):
    """Refused with E810 and exit code 1."""
    assert (ran.code, error_line(ran)[0]) == (1, "E810")


def test_nothing_is_lost(folder, tmp_path):
    """Without its footer a container comes back as it was, with exit code 0."""
    data = (folder / "cache.kvq").read_bytes()
    torn = tmp_path / "torn.kvq"
    torn.write_bytes(data[:-1])
    report = done("recover", torn, "--json").result
    assert (report["complete"], report["lost_row_bytes"]) == (True, 0)
    assert (tmp_path / "torn.recovered.kvq").read_bytes() == data


def test_what_is_lost_is_told(folder, tmp_path):
    """One line of error, exit code 1, and a list; the list is cut short for people alone."""
    ran = kvq("recover", folder / "torn.kvq", "-o", tmp_path / "part.kvq")
    assert ran.code == 1
    assert not ran.out
    first, *others = ran.err.splitlines()
    assert first.startswith("kvq: error KVQ-E810: ")
    assert any("lost" in line and "layers" in line for line in others)
    report = kvq("recover", folder / "torn.kvq", "-f", "-o", tmp_path / "part.kvq", "--json").result
    assert report["lost"]["rows"]
    assert 0 < report["lost_row_bytes"] < report["row_bytes"]
    assert report["broken"][0]["error_id"] == "E810"


def test_a_pipe(folder, partial):
    """Both ends may be pipes; the container is the same."""
    ran = process("recover", "-", "-o", "-", stdin=(folder / "torn.kvq").read_bytes())
    assert ran.code == 1
    assert ran.out == partial.read_bytes()


def test_the_torn_one_stays_as_it_is(folder, tmp_path):
    """The output is never the input, and nothing is overwritten unasked."""
    before = (folder / "torn.kvq").read_bytes()
    refused(kvq("recover", folder / "torn.kvq", "-f", "-o", folder / "torn.kvq"), 5, "E104")
    (tmp_path / "there").write_bytes(b"x")
    refused(kvq("recover", folder / "torn.kvq", "-o", tmp_path / "there"), 5, "E103")
    assert (folder / "torn.kvq").read_bytes() == before


def test_nothing_to_recover(folder, tmp_path):
    """A container of which no page is left, or whose header is damaged: no output."""
    data = (folder / "cache.kvq").read_bytes()
    start = data.index(b"PAGE")
    for name, torn in (("a", data[:start]), ("b", b"\x00" + data[1:]), ("c", data[:100])):
        (tmp_path / name).write_bytes(torn)
        error = {"a": "E302", "b": "E301", "c": "E302"}[name]
        refused(kvq("recover", tmp_path / name, "-o", tmp_path / "out"), 3, error)
        assert not (tmp_path / "out").exists()


def test_verify(partial, folder):
    """It is broken unless it may be partial; what is left of it comes from the capture."""
    partly(kvq("verify", partial))
    partly(kvq("verify", "--quick", partial))
    done("verify", "--partial", partial)
    done("verify", "--partial", partial, "--against", folder / "cache")


def test_inspect(partial, folder):
    """Says what it was and what it lacks."""
    told = done("inspect", partial, "--json").result["partial"]
    assert told["content_root"] is None
    assert told["lost"]["rows"]
    assert "lost " in done("inspect", partial).out
    assert done("inspect", folder / "cache.kvq", "--json").result["partial"] is None


def test_decompress_asks_what_stands_for_lost_rows(partial, tmp_path):
    """Without that it is refused, and leaves nothing behind."""
    before = sorted(tmp_path.iterdir())
    ran = kvq("decompress", partial, "-o", tmp_path / "back")
    partly(ran)
    assert sorted(tmp_path.iterdir()) == before


def files(path):
    """The safetensors files of what was restored."""
    return sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]


@pytest.mark.parametrize("layout", ["source", "canonical", "hf", "vllm"])
@pytest.mark.parametrize("fill", ["zero", "nan"])
def test_filled_rows(partial, folder, tmp_path, fill, layout):
    """Exactly the rows that are lost are zero or NaN, in any layout; the others as ever."""
    done("decompress", folder / "cache.kvq", "-o", tmp_path / "whole", "--layout", layout)
    arguments = ["--partial", fill, "--layout", layout, "--json"]
    report = done("decompress", partial, "-o", tmp_path / "back", *arguments).result
    assert report["fill"] == fill
    lost = wrong = 0
    for whole, back in zip(files(tmp_path / "whole"), files(tmp_path / "back"), strict=True):
        rows = load_file(whole)
        for name, found in load_file(back).items():
            gone = np.isnan(found) if fill == "nan" else found == 0
            lost += int(gone.sum())
            wrong += int((found != rows[name])[~gone].sum())
    expected = sum(
        sum(stop - start for start, stop in row["heads"])
        * (row["tokens"][1] - row["tokens"][0])
        * CHANNELS
        for row in report["lost"][0]["rows"]
    )
    assert wrong == 0
    assert lost == expected if fill == "nan" else lost >= expected


def test_a_slice_of_what_is_there(partial, folder, tmp_path):
    """Needs no filling, and is the slice of the whole container."""
    arguments = ["--role", "key", "--layers", "0", "--tokens", "0:20"]
    done("decompress", partial, "-o", tmp_path / "a", *arguments)
    done("decompress", folder / "cache.kvq", "-o", tmp_path / "b", *arguments)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    ran = kvq("decompress", partial, "-o", tmp_path / "c", "--role", "value", "--layers", "2")
    partly(ran)


def test_a_partial_container_from_a_pipe(partial, tmp_path):
    """It is filled like a file."""
    done("decompress", partial, "--partial", "nan", "-o", tmp_path / "a")
    ran = process("decompress", "-", "--partial", "nan", "-o", "-", stdin=partial.read_bytes())
    assert (ran.code, ran.out) == (0, (tmp_path / "a").read_bytes())
    ran = process("decompress", "-", "-o", "-", stdin=partial.read_bytes())
    assert ran.code == 1


def test_rows_of_python(partial):
    """open_container gives rows that are there, and never others."""
    with open_container(partial) as cache:
        assert cache.rows(Role.KEY, 0).shape == (HEADS, TOKENS, CHANNELS)
        with pytest.raises(KvqError) as refusal:
            cache.rows(Role.VALUE, LAYERS - 1)
        assert refusal.value.error_id == "E810"


def test_stats_are_refused(partial):
    """A ratio of what is left would flatter."""
    partly(kvq("stats", partial))


def test_a_whole_container_has_nothing_to_fill(folder, tmp_path):
    """--partial changes nothing of it."""
    done("decompress", folder / "cache.kvq", "-o", tmp_path / "a")
    report = done(
        "decompress", folder / "cache.kvq", "--partial", "nan", "-o", tmp_path / "b", "--json"
    )
    assert (report.result["fill"], report.result["lost"]) == (None, [])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_continues_a_damaged_container(folder, tmp_path):
    """A segment follows what was recovered of its base, where its footer told the root."""
    base = folder / "cache.kvq"
    done("compress", folder / "cache", "--continues", base, "-o", tmp_path / "next.kvq")
    data = bytearray(base.read_bytes())
    data[data.index(b"PAGE") + 200] ^= 1
    (tmp_path / "hurt.kvq").write_bytes(data)
    assert kvq("recover", tmp_path / "hurt.kvq", "-o", tmp_path / "part.kvq").code == 1
    parts = [tmp_path / "part.kvq", tmp_path / "next.kvq"]
    ran = kvq("decompress", *parts, "-o", tmp_path / "joined")
    partly(ran)
    report = done("decompress", *parts, "-o", tmp_path / "joined", "--partial", "zero", "--json")
    (lost,) = report.result["lost"]
    assert json.dumps(lost["rows"][0]["tokens"]) == json.dumps([0, TOKENS])
