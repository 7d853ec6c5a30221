"""Prompt caches that mlx-lm itself saves and loads, where it is installed (pip install mlx-lm).

Caches of every class are filled with numbers; KVQ_CAPTURES adds those of its folder `mlx` that
the installed release can load. On a machine without a GPU of Apple's, `mlx[cpu]` is needed too.
"""

from __future__ import annotations

import numpy as np
import pytest

from kvq_cli import pipeline
from kvq_cli.capture import open_capture
from support.captures import canonical_capture, kv_bits, seed_of
from support.real import captures

version = pytest.importorskip("mlx_lm", reason="mlx-lm is not installed").__version__
library = pytest.importorskip("mlx_lm.models.cache")
mx = pytest.importorskip("mlx.core")

pytestmark = pytest.mark.long
LAYOUT = "mlx" if tuple(map(int, version.split(".")[:2])) >= (0, 32) else "mlx-0.31"
TOLD = {"model": "random"}
SHAPE = (1, 2, 32)


def filled(cache, *steps):
    """The cache after so many tokens at once, and so many."""
    for at, count in enumerate(steps):
        batch, heads, channels = SHAPE
        numbers = [mx.random.key(2 * at + role) for role in range(2)]
        rows = [mx.random.normal((batch, heads, count, channels), key=key) for key in numbers]
        cache.update_and_fetch(*(each.astype(mx.float16) for each in rows))
    return cache


def plain(*steps):
    return filled(library.KVCache(), *steps)


def rotating(*steps):
    return filled(library.RotatingKVCache(max_size=64, keep=4), *steps)


def arrays():
    cache = library.ArraysCache(2)
    cache[0], cache[1] = mx.ones((1, 3, 8)), mx.ones((1, 2, 4, 4))
    return cache


# A cache, and how many tokens kvq finds in each of its layers.
CACHES = {
    "one token": (lambda: [plain(1)], {0: 1}),
    "many layers": (lambda: [plain(300, 1, 4) for _ in range(12)], dict.fromkeys(range(12), 305)),
    "full buffer": (lambda: [plain(256)], {0: 256}),
    "window": (lambda: [rotating(60, *[1] * 30), plain(90)], {0: 64, 1: 90}),
    "window at once": (lambda: [rotating(90), plain(90)], {0: 90, 1: 90}),
    "growing window": (lambda: [rotating(*[1] * 20)], {0: 20}),
    "chunked": (lambda: [filled(library.ChunkedKVCache(64), 20)], {0: 20}),
    "concatenated": (lambda: [filled(library.ConcatenateKVCache(), 5, 4)], {0: 9}),
    "quantised": (lambda: [plain(40).to_quantized(group_size=32, bits=4)], {}),
    "arrays": (lambda: [arrays(), plain(10)], {1: 10}),
    "list": (lambda: [library.CacheList(plain(5), plain(5)), plain(5)], {1: 5}),
}


def state(cache):
    """All that a cache holds, with numbers and classes."""
    return [
        (type(each).__name__, bits(each.state), getattr(each, "meta_state", None))
        for each in cache
    ]  # fmt: skip


def bits(value):
    if isinstance(value, mx.array):
        return str(value.dtype), value.shape, bytes(memoryview(value)) if value.size else b""
    return [bits(each) for each in value] if isinstance(value, list | tuple) else value


def loaded(path):
    return library.load_prompt_cache(str(path), return_metadata=True)


@pytest.mark.parametrize("name", CACHES)
def test_saved_caches(name, tmp_path):
    """Every class is recognised, its tokens found; the restored file is the same cache."""
    made, tokens = CACHES[name]
    path, back = tmp_path / "cache.safetensors", tmp_path / "back.safetensors"
    library.save_prompt_cache(str(path), made(), TOLD)
    with open_capture(path) as capture:
        assert capture.layout == LAYOUT
        assert {shape.layer: shape.tokens for shape in capture.layers} == tokens
        assert capture.identity["model"] == "random"
    pipeline.compress(path, tmp_path / "box")
    pipeline.decompress(tmp_path / "box", back)
    assert back.read_bytes() == path.read_bytes()
    if name == "list" and LAYOUT != "mlx":
        pytest.skip(f"mlx-lm {version} does not load its own CacheList")
    found, told = loaded(back)
    assert told == TOLD
    assert state(found) == state(loaded(path)[0])


@pytest.mark.parametrize(
    ("told", "metadata"),
    [({}, {}), (TOLD, TOLD), ({"a.b": "c", "0": "d"}, {"a": {"b": "c"}, "0": "d"})],
)
@pytest.mark.parametrize("tokens", [1, 256, 300])
def test_canonical_becomes_a_cache(tokens, told, metadata, tmp_path):
    """mlx-lm loads what kvq writes, finds every token, and goes on with the next one."""
    source = tmp_path / "canonical"
    shape = (1, 11, 2, tokens, 32)
    data = canonical_capture(layers=11, heads=2, tokens=tokens, channels=32, metadata=told)
    source.write_bytes(data)
    pipeline.compress(source, tmp_path / "box")
    pipeline.decompress(tmp_path / "box", tmp_path / "cache.safetensors", layout=LAYOUT)
    found, read = loaded(tmp_path / "cache.safetensors")
    assert len(found) == 11
    assert read == metadata
    for layer, cache in enumerate(found):
        assert type(cache).__name__ == "KVCache"
        assert cache.offset == tokens
        for role, held in (("key", cache.keys), ("value", cache.values)):
            array = np.array(held[:, :, :tokens]).view("<u2")
            assert np.array_equal(array, kv_bits(shape, "F16", seed_of(role))[:, layer])
        grown, _ = cache.update_and_fetch(mx.ones((1, 2, 1, 32)), mx.ones((1, 2, 1, 32)))
        assert grown.shape[2] == cache.offset == tokens + 1


@pytest.mark.parametrize("path", captures("mlx"))
def test_real_caches(path, tmp_path):
    """A real cache, restored and turned into canonical and back, is the same cache."""
    with open_capture(path) as capture:
        if capture.layout != LAYOUT:
            pytest.skip(f"mlx-lm {version} does not load {capture.layout}")
        plain_rows = bool(capture.bindings)
    first, told = loaded(path)
    box, back = tmp_path / "box", tmp_path / "back.safetensors"
    pipeline.compress(path, box)
    pipeline.decompress(box, back)
    assert state(loaded(back)[0]) == state(first)
    if plain_rows:
        pipeline.decompress(box, tmp_path / "canonical", layout="canonical")
        pipeline.compress(tmp_path / "canonical", tmp_path / "box2")
        pipeline.decompress(tmp_path / "box2", back, layout=LAYOUT, force=True)
        found, metadata = loaded(back)
        assert metadata == told
        assert state(found) == state(first)
