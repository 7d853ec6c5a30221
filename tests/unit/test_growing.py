"""CacheWriter: tokens pushed one by one come back from the chain as they were."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kvq_cli
from kvq_cli.errors import ExpectationError, UsageError
from support.captures import canonical_capture, kv_bits

LAYERS, HEADS, CHANNELS = 2, 3, 8
SIZES = {"layers": LAYERS, "kv_heads": HEADS, "head_dim": CHANNELS}
KEYS, VALUES = (kv_bits((LAYERS, HEADS, 12, CHANNELS), "F16", seed) for seed in (1, 2))


def joined(folder, *boxes):
    """Both roles of a chain, (layers, heads, tokens, channels) bits."""
    target = folder / "joined"
    kvq_cli.decompress(boxes[0], target, then=boxes[1:], layout="canonical", force=True)
    data = target.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    found = []
    for role in ("key", "value"):
        entry = header[role]
        begin = 8 + length + entry["data_offsets"][0]
        count = int(np.prod(entry["shape"]))
        found.append(np.frombuffer(data, "<u2", count, begin).reshape(entry["shape"])[0])
    return found


def test_a_chain_of_pushed_tokens(tmp_path):
    """One token, several, and a segment whenever it is full."""
    cache = kvq_cli.CacheWriter(**SIZES, capacity=5, metadata={"model": "m"})
    boxes, start = [], 0
    for count in (1, 1, 3, 2, 3, 2):
        stop = start + count
        keys, values = (each[:, :, start:stop].view("<f2") for each in (KEYS, VALUES))
        if len(cache) + count > cache.capacity:
            boxes.append(tmp_path / f"{len(boxes)}.kvq")
            cache.write(boxes[-1])
        single = count == 1
        cache.push(keys[:, :, 0] if single else keys, values[:, :, 0] if single else values)
        assert np.array_equal(
            cache.rows(kvq_cli.Role.VALUE, 1)[:, -count:].view("<u2"), VALUES[1, :, start:stop]
        )
        start = stop
    boxes.append(tmp_path / "last.kvq")
    report = cache.write(boxes[-1])
    assert (report.layout, len(cache), cache.positions) == ("canonical", 0, [])
    keys, values = joined(tmp_path, *boxes)
    assert np.array_equal(keys, KEYS)
    assert np.array_equal(values, VALUES)
    found = kvq_cli.inspect(boxes[-1]).to_json()
    assert (found["token_offset"], found["identity"]) == (10, {"model": "m"})


def test_capacity(tmp_path):
    """A token too many is refused by a type of its own, and nothing of it is held."""
    cache = kvq_cli.CacheWriter(**SIZES, capacity=4)
    cache.push(KEYS[:, :, :3], VALUES[:, :, :3])
    with pytest.raises(kvq_cli.CapacityError) as refusal:
        cache.push(KEYS[:, :, 3:5], VALUES[:, :, 3:5])
    assert (refusal.value.capacity, refusal.value.position) == (4, 4)
    assert refusal.value.error_id == "E702"
    assert len(cache) == 3
    cache.push(KEYS[:, :, 3], VALUES[:, :, 3])
    assert len(cache) == 4
    chosen = cache.rows(kvq_cli.Role.KEY, 0, [3, 0])
    assert np.array_equal(chosen.view("<u2"), KEYS[0][:, [3, 0]])
    cache.write(tmp_path / "a.kvq")
    cache.push(KEYS[:, :, 4:8], VALUES[:, :, 4:8])


def test_clear_keeps_the_chain(tmp_path):
    """What is cleared is not written; what was written is continued."""
    cache = kvq_cli.CacheWriter(**SIZES, capacity=4)
    cache.push(KEYS[:, :, :2], VALUES[:, :, :2])
    cache.write(tmp_path / "a.kvq")
    cache.push(KEYS[:, :, 8:9], VALUES[:, :, 8:9])
    cache.clear()
    assert len(cache) == 0
    cache.push(KEYS[:, :, 2:4], VALUES[:, :, 2:4])
    cache.write(tmp_path / "b.kvq")
    keys, _ = joined(tmp_path, tmp_path / "a.kvq", tmp_path / "b.kvq")
    assert np.array_equal(keys, KEYS[:, :, :4])


def test_positions(tmp_path):
    """Positions are consecutive unless told; told ones are carried in the container."""
    cache = kvq_cli.CacheWriter(**SIZES, capacity=8)
    cache.push(KEYS[:, :, :2], VALUES[:, :, :2])
    assert cache.positions == [0, 1]
    cache.push(KEYS[:, :, 2:4], VALUES[:, :, 2:4], positions=[7, 9])
    cache.push(KEYS[:, :, 4], VALUES[:, :, 4])
    assert cache.positions == [0, 1, 7, 9, 4]
    cache.write(tmp_path / "a.kvq")
    kvq_cli.decompress(tmp_path / "a.kvq", tmp_path / "a")
    assert np.array([0, 1, 7, 9, 4], "<i8").tobytes() in (tmp_path / "a").read_bytes()
    for wrong in ([1], [1, -1], [0, 1 << 40]):
        with pytest.raises(UsageError):
            cache.push(KEYS[:, :, :2], VALUES[:, :, :2], positions=wrong)


def test_profiles_and_an_older_chain(tmp_path):
    """A writer continues a chain that is there, by profiles of its own."""
    (tmp_path / "base").write_bytes(
        canonical_capture(layers=LAYERS, heads=HEADS, tokens=5, channels=CHANNELS)
    )
    kvq_cli.compress(tmp_path / "base", tmp_path / "base.kvq")
    words = {"profiles": ["int8"], "continues": [tmp_path / "base.kvq"]}
    cache = kvq_cli.CacheWriter(**SIZES, capacity=4, **words)
    cache.push(KEYS[:, :, :2], VALUES[:, :, :2])
    report = cache.write(tmp_path / "a.kvq", threads=1)
    assert report.profiles[0]["name"] == "int8"
    keys, _ = joined(tmp_path, tmp_path / "base.kvq", tmp_path / "a.kvq")
    assert keys.shape[2] == 7
    one_head = SIZES | {"kv_heads": 1}
    other = kvq_cli.CacheWriter(**one_head, capacity=4, continues=words["continues"])
    other.push(KEYS[:, :1, :2], VALUES[:, :1, :2])
    with pytest.raises(ExpectationError) as refusal:
        other.write(tmp_path / "x.kvq")
    assert refusal.value.error_id == "E808"
    assert len(other) == 2  # what could not be written is still held


@pytest.mark.parametrize("dtype", list(kvq_cli.DType))
def test_dtypes(dtype, tmp_path):
    """Floats of the dtype, or their bits; nothing is converted."""
    bits = kv_bits((LAYERS, HEADS, 3, CHANNELS), str(dtype), 3)
    cache = kvq_cli.CacheWriter(**SIZES, capacity=4, dtype=dtype)
    cache.push(bits, bits)
    rows = cache.rows(kvq_cli.Role.KEY, 1)
    assert np.array_equal(rows.view(bits.dtype), bits[1])
    cache.write(tmp_path / "a.kvq")
    with kvq_cli.open_container(tmp_path / "a.kvq") as box:
        found = box.rows(kvq_cli.Role.VALUE, 0, dtype=None)
        assert np.array_equal(found, bits[0])


def test_wrong_arguments(tmp_path):
    """Other shapes, dtypes and layers, and writing nothing, are refused."""
    cache = kvq_cli.CacheWriter(**SIZES, capacity=4)
    wrong = [
        (KEYS[:1], VALUES[:1]),
        (KEYS[:, :1], VALUES[:, :1]),
        (KEYS[..., :4], VALUES[..., :4]),
        (KEYS[:, :, :0], VALUES[:, :, :0]),
        (KEYS[:, :, :1], VALUES[:, :, :2]),
        (KEYS.astype("<f4")[:, :, :1], VALUES[:, :, :1]),
        (KEYS[0], VALUES[0]),
    ]
    for keys, values in wrong:
        with pytest.raises(UsageError):
            cache.push(keys, values)
    with pytest.raises(UsageError):
        cache.write(tmp_path / "x")
    cache.push(KEYS[:, :, :2], VALUES[:, :, :2])
    for layer, tokens in ((2, [0]), (-1, [0]), (0, [2]), (0, [-1])):
        with pytest.raises(UsageError):
            cache.rows(kvq_cli.Role.KEY, layer, tokens)
    with pytest.raises(UsageError):
        kvq_cli.CacheWriter(**SIZES, capacity=0)
