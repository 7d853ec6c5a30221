"""Damaged and forged containers: every story succeeds or raises KvqError, and nothing else.

Half of the mutants are forged: their CRCs, lengths and digests are computed anew after the
mutation, so that what it says reaches the code behind the digests.
"""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest

from kvq_cli import pipeline
from kvq_cli.errors import KvqError
from kvq_cli.page import Role
from kvq_cli.steps.bind import Terms, bind_profile
from kvq_cli.steps.lost import Fill
from support.captures import canonical_capture, kv_bits, per_layer_capture, safetensors_bytes
from support.surgery import put_together, take_apart

NUMBERS = (0, 1, 2, 3, 7, 63, 64, 127, 128, 255, 256, 4095, 4096, 65535, 65536, 1 << 20)
NUMBERS += tuple((1 << bits) + by for bits in (31, 32, 40, 48, 50, 62, 63) for by in (-1, 0))
WORDS = ("", "key", "value", "raw", "lossless", "int8", "none", "zstd", "BLHTD", "BHTD", "DTHLB")
WORDS += ("F16", "F32", "I8", "<f4", "|u1", "\x1b[31m", "\ud7ff", "x" * 5000, "blake3:" + "0" * 64)
PROFILE = {
    "schema": "kvq_profile_v1",
    "name": "fuzz",
    "page_tokens": 16,
    "rules": [{"role": "key", "codec": {"name": "int8", "axis": "channel"}}, {"codec": "int8"}],
    "protected": {"first_tokens": 2, "heads": [[1, 2]]},
}
LAYERS = {"schema": "kvq_profile_v1", "name": "layers", "rules": [], "page_layers": 2}


def extras():
    shape = (2, 2, 2, 20, 8)
    key, value = kv_bits(shape, "F32", 1), kv_bits(shape, "BF16", 2)
    key[0, 0, 0, 3, 3] = 0x7FC00000
    return safetensors_bytes(
        {
            "key": ("F32", shape, key.tobytes()),
            "value": ("BF16", shape, value.tobytes()),
            "positions": ("I64", (20,), bytes(160)),
        },
        {"model": "m"},
    )


FACTS = {"attention_kind": "gqa", "query_heads": "4", "rope_state": "post"}


def coded_capture():
    return canonical_capture(tokens=20, channels=8, metadata=FACTS)


def bound_profile(folder):
    """A KV profile, whose codec has tables."""
    source, target = folder / "coded", folder / "bound.json"
    source.write_bytes(coded_capture())
    terms = Terms(block=2, size=8, axis="per_channel", page_tokens=16)
    target.write_text(json.dumps(bind_profile(source, Role.KEY, terms).to_json()))
    return target


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Containers of every codec, with tensors carried along, ragged, split and non-finite."""
    folder = tmp_path_factory.mktemp("originals")
    profile = folder / "profile.json"
    profile.write_text(json.dumps(PROFILE))
    layers = folder / "layers.json"
    layers.write_text(json.dumps(LAYERS))
    captures = (
        (canonical_capture(tokens=20), ()),
        (per_layer_capture(tokens=(5, 33), dtype="BF16"), (profile,)),
        (extras(), ("int8",)),
        (extras(), ()),
        (coded_capture(), (bound_profile(folder),)),
        (per_layer_capture(tokens=(9, 9, 9, 4)), (layers,)),
    )
    found = []
    for number, (data, profiles) in enumerate(captures):
        path, target = folder / f"{number}", folder / f"{number}.kvq"
        path.write_bytes(data)
        pipeline.compress(path, target, profiles=profiles, threads=1)
        found.append(target.read_bytes())
    return found


def outcome(story):
    """What a story raised that kvq declares; anything else fails the test."""
    try:
        story()
    except KvqError as error:
        return error
    return None


def every_story(path: Path, chance: random.Random) -> KvqError | None:
    """verify, inspect, decompress and recover a file, in whole or in part."""
    target = path.with_name("out")
    selection = chance.choice([None, None, pipeline.Selection(chosen_tokens=(slice(1, 4),))])
    layout = chance.choice(["source", "source", "canonical", "hf"])
    if chance.random() < 0.5:
        outcome(lambda: pipeline.inspect(path, pages=True, tensors=True))
    outcome(
        lambda: pipeline.decompress(
            path, target, selection=selection, layout=layout, threads=1, force=True
        )
    )
    if chance.random() < 0.2:
        outcome(lambda: pipeline.stats(path, threads=1))
    if chance.random() < 0.3:
        recovered(path)
    return outcome(lambda: pipeline.verify(path, threads=1))


def recovered(path: Path) -> None:
    """What is left of a file is a container that holds, whatever was made of the file."""
    left = path.with_name("left.kvq")
    if outcome(lambda: pipeline.recover(path, left, threads=1, force=True)) is None:
        assert not pipeline.verify(left, partial=True, threads=1).broken
        pipeline.decompress(left, path.with_name("out"), partial=Fill.NAN, threads=1, force=True)


def scratched(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """The file with one to four random edits of its bytes."""
    edited = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(edited) or 1)
        kind = chance.randrange(6)
        if kind == 0:
            del edited[at:]
        elif kind == 1:
            del edited[at : at + chance.randint(1, 200)]
        elif kind == 2:
            other = chance.choice(others)
            begin = chance.randrange(len(other))
            piece = other[begin : begin + chance.randint(1, 2000)]
            edited[at : at + chance.choice([0, len(piece)])] = piece
        elif kind == 3:
            number = chance.choice(NUMBERS)
            edited[at & -4 : (at & -4) + 8] = struct.pack("<Q", number)
        else:
            for _ in range(chance.randint(1, 5)):
                if edited:
                    edited[chance.randrange(len(edited))] ^= 1 << chance.randrange(8)
    return bytes(edited)


def forged(data: bytes, chance: random.Random) -> bytes:
    """The file with one to three lies in it, under digests that hold."""
    while True:
        body = take_apart(data)
        for _ in range(chance.randint(1, 3)):
            lie(body, chance)
        try:
            return put_together(body)
        except (struct.error, KeyError, ValueError, TypeError, AttributeError, IndexError):
            continue  # no file can say this


def lie(body, chance: random.Random) -> None:
    if chance.random() < 0.2:
        chunks = body["chunks"]
        at, to = chance.randrange(len(chunks)), chance.randrange(len(chunks))
        moved = chunks.pop(at) if chance.random() < 0.6 else chunks[at]
        if chance.random() < 0.7:
            chunks.insert(to, moved)
        return
    branch = chance.choice(["header", "header", "chunks", "preamble", "footer"])
    if branch == "footer":
        body["footer"][chance.choice(["pages", "chunks", "root", "length"])] = number(chance)
        return
    if branch == "chunks" and chance.random() < 0.4:
        chunk = chance.choice(body["chunks"])
        chunk[chance.choice(["packed", "sequence", "count", "reserved", "first"])] = number(chance)
        return
    holder, key = leaf(body[branch], chance)
    holder[key] = changed(holder[key], chance)


def leaf(value, chance: random.Random):
    """A random place in a JSON value: mostly a leaf, at times a whole branch."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = chance.choice(list(keys))
        below = value[key]
        if not isinstance(below, dict | list) or not below or chance.random() < 0.05:
            return value, key
        value = below


def number(chance: random.Random) -> int:
    return chance.choice(NUMBERS)


def changed(value, chance: random.Random):
    if chance.random() < 0.1:
        return chance.choice([None, True, [], {}, -1, 1.5, "", [[]], {"a": 1}])
    if isinstance(value, int):
        return value + chance.choice([-1, 1, 2, 16]) if chance.random() < 0.5 else number(chance)
    if not isinstance(value, str):
        return number(chance)
    if len(value) % 2 or set(value) - set("0123456789abcdef") or len(value) < 4:
        return chance.choice(WORDS)
    raw = bytearray.fromhex(value)
    if chance.random() < 0.2:
        return bytes(raw[: chance.randrange(len(raw))]).hex()
    raw[chance.randrange(len(raw))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
    return raw.hex()


def fuzz(originals, folder: Path, seeds: range) -> None:
    path = folder / "mutant.kvq"
    detected = 0
    for seed in seeds:
        chance = random.Random(seed)  # noqa: S311 - not for secrets
        data = originals[seed % len(originals)]
        make = forged if seed % 2 else scratched
        mutant = forged(data, chance) if seed % 2 else scratched(data, originals, chance)
        path.write_bytes(mutant)
        try:
            found = every_story(path, chance)
        except BaseException as error:
            error.add_note(f"{make.__name__}, seed {seed}")
            raise
        if mutant == data:
            continue
        detected += found is not None
        if make is scratched:
            assert found is not None, f"seed {seed}: a damaged container was verified"
    # Most lies contradict something; a profile's words or a weaker claim may pass.
    assert detected > 0.8 * len(seeds)


def test_mutants(originals, tmp_path):
    """2,000 mutants raise KvqError or succeed; those that were only scratched are detected."""
    fuzz(originals, tmp_path, range(2000))


@pytest.mark.long
def test_many_mutants(originals, tmp_path):
    """Likewise 10,000 others."""
    fuzz(originals, tmp_path, range(2000, 12000))
