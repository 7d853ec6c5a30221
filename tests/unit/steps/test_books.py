"""books: codebooks of one's own, from training to containers that hold them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kvq_cli import pipeline
from kvq_cli.errors import ProfileError, UsageError
from kvq_cli.profile import parse_profile
from kvq_cli.steps.books import make_codebook, read_codebooks
from support.captures import canonical_capture
from support.real import by_layer, floats
from support.shell import done, kvq, refused


@pytest.fixture(scope="module")
def made():
    """32 codewords for pairs of rows of 24 channels: trained in a moment."""
    return make_codebook(24, 2, 32, 5)


def written(path, value):
    path.write_text(json.dumps(value))
    return path


def profile_for(made, **more):
    codec = {name: made[name] for name in ("block", "size")} | {"codebook": made["digest"]}
    rules = [{"codec": {"name": "fibquant", **codec, **more}}]
    return {"schema": "kvq_profile_v1", "name": "mine", "rules": rules}


def test_a_trained_codebook_errs_as_it_should(made, tmp_path):
    """2.5 bits a coordinate: between what 2 and 3 bits of single coordinates lose."""
    values = np.random.default_rng(0).standard_normal((1, 1, 2, 400, 24)).astype(np.float16)
    from support.captures import safetensors_bytes

    tensors = {role: ("F16", values.shape, values.tobytes()) for role in ("key", "value")}
    source, box = tmp_path / "cache", tmp_path / "box.kvq"
    source.write_bytes(safetensors_bytes(tensors))
    book = written(tmp_path / "book.json", made)
    profile = parse_profile(profile_for(made, norm_correction=False))
    pipeline.compress(source, box, profiles=[profile], codebooks=[book])
    found = floats(*by_layer(box, tmp_path / "back")["layers.0.key"])
    error = ((found - values[0, 0].astype(float)) ** 2).sum() / (values.astype(float) ** 2).sum()
    assert 0.045 < error < 0.065


def test_containers_hold_the_codebook(made, tmp_path):
    """Nothing but the container is needed to restore, with 1 thread or 3; stats counts it."""
    source, box = tmp_path / "cache", tmp_path / "box.kvq"
    source.write_bytes(canonical_capture(layers=2, heads=2, tokens=70, channels=24))
    book = written(tmp_path / "book.json", made)
    profile = written(tmp_path / "mine.json", profile_for(made, center=True))
    for threads in (1, 3):
        words = ("-p", profile, "--codebook", book, "-o", box, "-f", "-T", threads)
        done("compress", source, *words)
        done("verify", box, "--against", source, "-T", threads)
        done("decompress", box, "-o", tmp_path / f"back{threads}", "-T", threads)
    assert (tmp_path / "back1").read_bytes() == (tmp_path / "back3").read_bytes()
    assert done("stats", box, "--json").result["parts"]["tables"] > 2 * 32 * 2
    done("stats", source, "-p", profile, "--codebook", book)


def test_a_profile_without_its_codebook_is_refused(made, tmp_path):
    """E403 names the digest; another book does not help, and nothing is written."""
    source, box = tmp_path / "cache", tmp_path / "box.kvq"
    source.write_bytes(canonical_capture(channels=24))
    profile = written(tmp_path / "mine.json", profile_for(made))
    refused(kvq("compress", source, "-p", profile, "-o", box), 4, "E403", made["digest"])
    wrong = profile_for(made) | {"name": "wrong"}
    wrong["rules"][0]["codec"]["size"] = 16
    path = written(tmp_path / "wrong.json", wrong)
    book = written(tmp_path / "book.json", made)
    refused(kvq("compress", source, "-p", path, "--codebook", book, "-o", box), 1, "E402")
    assert not box.exists()


@pytest.mark.parametrize(
    ("change", "error_id"),
    [
        ({"schema": "kvq_codebook_v2"}, "E401"),
        ({"grid": 6}, "E401"),
        ({"block": "2"}, "E401"),
        ({"size": 31}, "E401"),
        ({"size": True}, "E401"),
        ({"codewords": []}, "E401"),
        ({"codewords": [[0, 0]] * 31 + [[0, 5000]]}, "E401"),
        ({"codewords": [[0, 0]] * 31 + [[0, 1.5]]}, "E401"),
        ({"codewords": [[0, 0]] * 31 + [[0]]}, "E401"),
        ({"codewords": [[0, 0]] * 32}, "E402"),
        ({"digest": "blake3:" + "0" * 64}, "E402"),
        ({"digest": None}, "E402"),
        ({"more": 1}, "E401"),
    ],
)
def test_files_that_are_no_codebook_are_refused(change, error_id, made, tmp_path):
    """Each with the id of what is wrong."""
    path = written(tmp_path / "book.json", made | change)
    with pytest.raises(ProfileError) as refusal:
        read_codebooks([path])
    assert refusal.value.error_id == error_id


@pytest.mark.parametrize(
    "numbers", [(24, 3, 32), (24, 2, 33), (2, 2, 4), (641, 2, 4), (64, 128, 4)]
)
def test_numbers_that_cannot_be_trained_are_usage(numbers):
    """E101, before anything is computed."""
    with pytest.raises(UsageError):
        make_codebook(*numbers, 0)


def test_the_command_writes_what_the_story_makes(tmp_path):
    """The file is the one that is read; a terminal's copy is the same; nothing is overwritten."""
    path = tmp_path / "book.json"
    words = ("profile", "codebook", "--channels", 8, "--block", 2, "--size", 4, "--seed", 5)
    made = make_codebook(8, 2, 4, 5)
    done(*words, "-o", path)
    assert json.loads(path.read_text()) == made
    assert list(read_codebooks([path])) == [made["digest"]]
    assert done(*words).out == path.read_text()
    refused(kvq(*words, "-o", path), 5, "E103")
