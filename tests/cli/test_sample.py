"""--sample: a part of a capture by a fixed rule, measured as a capture of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kvq_cli.capture.layout import LayerShape
from kvq_cli.errors import UsageError
from kvq_cli.steps.sample import Sample
from kvq_cli.words import DType
from support.captures import canonical_capture, kv_bits, safetensors_bytes
from support.shell import done, kvq, left_alone, refused

LAYERS, HEADS, TOKENS, CHANNELS = 5, 2, 1100, 8
LAST = 768  # what 2x512 keeps of the end begins here
PARTS = [(0, 256), (LAST, TOKENS)]


def layer(number, tokens=9):
    return LayerShape(number, 1, 1, tokens, (8, DType.F16), (8, DType.F16))


def capture(tensors=None, **metadata):
    """One tensor a layer, in F16, of which one has fewer tokens."""
    found = dict(tensors or {})
    for at in range(LAYERS):
        shape = (1, HEADS, 700 if at == 2 else TOKENS, CHANNELS)
        for role in ("key", "value"):
            bits = kv_bits(shape, "F16", len(found)) & 0xBFFF
            found[f"layers.{at}.{role}"] = ("F16", shape, bits.tobytes())
    return safetensors_bytes(found, metadata)


def queries(positions, layers=LAYERS, seed=3):
    shape = (1, layers, 2 * HEADS, len(positions), CHANNELS)
    bits = kv_bits((1, LAYERS, 2 * HEADS, len(positions), CHANNELS), "F16", seed) & 0xBFFF
    return {
        "query": ("F16", shape, bits[:, :layers].tobytes()),
        "positions": ("I64", (len(positions),), np.array(positions, "<i8").tobytes()),
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cache").write_bytes(capture())
    (tmp_path / "q").write_bytes(safetensors_bytes(queries([5, 300, 767, 768, 900, TOKENS - 1])))
    return tmp_path


def stats(path, *words):
    return done("stats", path, "-p", "int4", "--json", *words).result


def test_which_layers():
    """From the first to the last; one is the middle one; more than there are is all."""
    ten = [layer(at) for at in range(10)]
    for count, numbers in ((1, [5]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, None), (99, None)):
        chosen = [each.layer for each in Sample(count).chosen(ten)]
        assert chosen == (numbers if numbers is not None else list(range(10)))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (1, [(0, 1)]),
        (512, [(0, 512)]),
        (767, [(0, 767)]),
        (768, [(0, 256), (512, 768)]),
        (TOKENS, PARTS),
        (65536, [(0, 256), (65280, 65536)]),
    ],
)
def test_which_tokens(tokens, expected):
    """The first page and whole pages of the end; a layer of little more is whole."""
    assert Sample(1, 512).ranges(tokens) == expected
    assert Sample(1).ranges(tokens) == [(0, tokens)]


@pytest.mark.parametrize("text", ["", "0", "-1", "01", "2x", "2x0", "2x256", "2x513", "x512", "2 "])
def test_spellings(text):
    """What is no sample is refused."""
    assert Sample.parse("2x512") == Sample(2, 512)
    assert Sample.parse("3") == Sample(3)
    with pytest.raises(UsageError, match=r"--sample"):
        Sample.parse(text)


def cut(bits):
    """Of (…, T, D), the tokens of the part."""
    return np.concatenate([bits[..., start:stop, :] for start, stop in PARTS], axis=-2)


def test_as_a_capture_of_its_own(folder):
    """Every figure is that of a file that holds the part alone."""
    raw = {}
    for at in (0, 2, 4):
        shape = (1, HEADS, 700 if at == 2 else TOKENS, CHANNELS)
        for number, role in enumerate(("key", "value")):
            bits = kv_bits(shape, "F16", 2 * at + number) & 0xBFFF
            bits = bits if at == 2 else cut(bits)
            raw[f"layers.{at}.{role}"] = ("F16", bits.shape, np.ascontiguousarray(bits).tobytes())
    (folder / "part").write_bytes(safetensors_bytes(raw))
    asked = queries([768, 900, TOKENS - 1])
    bits = np.frombuffer(queries([5, 300, 767, 768, 900, TOKENS - 1])["query"][2], "<u2")
    bits = bits.reshape(1, LAYERS, 2 * HEADS, 6, CHANNELS)[:, ::2, :, 3:]
    asked["query"] = ("F16", bits.shape, np.ascontiguousarray(bits).tobytes())
    moved = np.array([768, 900, TOKENS - 1], "<i8") - (TOKENS - 700)
    asked["positions"] = ("I64", (3,), moved.tobytes())
    (folder / "asked").write_bytes(safetensors_bytes(asked))
    with left_alone(folder):
        for words, again in (
            ([], []),
            (["--queries", "self"], ["--queries", "self"]),
            (["--queries", folder / "q"], ["--queries", folder / "asked"]),
        ):
            found = stats(folder / "cache", "--sample", "3x512", *words)
            expected = stats(folder / "part", *again)
            told = {"layers": 3, "of_layers": LAYERS, "tokens": 700, "of_tokens": TOKENS}
            assert found.pop("sample") == told
            assert expected.pop("sample") is None
            for each in (found, expected):
                del each["path"], each["parts"]  # the header is stored in other bytes
            assert found == expected


def test_queries_of_the_capture(folder):
    """They lie in the part, and those that look elsewhere are left out."""
    (folder / "cache").write_bytes(capture(queries([5, 900, TOKENS - 1])))
    (folder / "q").write_bytes(safetensors_bytes(queries([5, 900, TOKENS - 1])))
    own = stats(folder / "cache", "--sample", "2x512")
    named = stats(folder / "cache", "--sample", "2x512", "--queries", folder / "q")
    assert (own["probe"]["kind"], named["probe"]["kind"]) == ("capture", "file")
    assert own["probe"]["digest"] == named["probe"]["digest"]
    assert own["attention"] == named["attention"]
    assert own["attention"][-1]["queries"] == 4


def test_queries_that_look_elsewhere(folder):
    """None of use is an error, and so are those of another capture."""
    (folder / "q").write_bytes(safetensors_bytes(queries([5, 700])))
    call = ["stats", folder / "cache", "-p", "int4", "--queries", folder / "q"]
    refused(kvq(*call, "--sample", "2x512"), 1, "E208", "look")
    assert stats(folder / "cache", "--sample", "2", "--queries", folder / "q")["attention"]
    (folder / "q").write_bytes(safetensors_bytes(queries([900], layers=3)))
    refused(kvq(*call, "--sample", "2x512"), 1, "E208", "layers")


def test_queries_without_positions_all_count(folder):
    """They see everything there is."""
    asked = queries([5, 900])
    del asked["positions"]
    (folder / "q").write_bytes(safetensors_bytes(asked))
    found = stats(folder / "cache", "--sample", "1x512", "--queries", folder / "q")
    assert found["attention"][-1]["queries"] == 2


def test_all_of_it_is_the_capture_itself(folder):
    """A sample that leaves nothing out changes no figure, but is told."""
    whole = stats(folder / "cache")
    found = stats(folder / "cache", "--sample", f"{LAYERS}x8192")
    assert found.pop("sample")["tokens"] == TOKENS
    whole.pop("sample")
    assert found == whole


def test_layers_count_from_the_end_of_the_whole(folder):
    """The middle layer is not the last."""
    rules = [{"layers": [[-1, None]], "codec": "int8"}, {"codec": "int4"}]
    told = {"schema": "kvq_profile_v1", "name": "p", "rules": rules}
    (folder / "p.json").write_text(json.dumps(told))
    call = ["stats", folder / "cache", "-p", folder / "p.json", "--json", "--sample"]
    one, two = (done(*call, count).result for count in ("1", "2"))
    assert {each["name"] for each in one["codecs"]} == {"int4"}
    assert {each["name"] for each in two["codecs"]} == {"int4", "int8"}
    assert {each["layer"] for each in two["layers"]} == {0, 4}


def test_layer_types_go_with_their_layers(folder):
    """Bases of rotary positions are found by the place of a layer."""
    words = json.dumps(["a", "a", "b", "a", "a"])
    theta = json.dumps({"a": 10_000, "b": 500})
    metadata = {"rope_state": "pre", "rope_theta": theta, "layer_types": words}
    (folder / "cache").write_bytes(capture(**metadata))
    whole = stats(folder / "cache", "--queries", "self")
    some = stats(folder / "cache", "--queries", "self", "--sample", "3")
    for number in (0, 2, 4):
        rows = [
            [row for row in each["attention"] if row["layer"] == number] for each in (whole, some)
        ]
        assert rows[0] == rows[1]
    call = ["stats", folder / "cache", "-p", "int4", "--queries", folder / "q"]
    refused(kvq(*call, "--sample", "3x512"), 2, "E101", "rotary")


def test_the_text_says_so(folder):
    """One profile, several, and the page."""
    call = ["stats", folder / "cache", "--sample", "2x512", "-p", "int4"]
    line = "2 of 5 layers, 588 of 1100 tokens"
    assert f"sample: {line}" in done(*call).out
    assert done(*call, "-p", "int8").out.count(f"sample: {line}") == 1
    done(*call, "--html", folder / "page.html", "-q")
    assert line in (folder / "page.html").read_text()
    (folder / "b.json").write_text('{"max_relative_mse": 0.01}')
    call = ["stats", folder / "cache", "--sample", "2x512", "--suggest"]
    assert f"sample: {line}" in done(*call, "--budget", folder / "b.json").err


def test_only_of_captures(folder):
    """A container is measured whole."""
    done("compress", folder / "cache", "-q")
    refused(kvq("stats", folder / "cache.kvq", "--sample", "1"), 2, "E101", "--sample")


def test_a_canonical_capture(tmp_path):
    """Any layout has samples; rows of all layers lie in one tensor."""
    data = canonical_capture(layers=3, heads=2, tokens=TOKENS, channels=8)
    (tmp_path / "cache").write_bytes(data)
    found = stats(tmp_path / "cache", "--sample", "2x512")
    assert found["sample"] == {"layers": 2, "of_layers": 3, "tokens": 588, "of_tokens": TOKENS}
    assert {each["layer"] for each in found["layers"]} == {0, 2}
    assert sum(found["parts"].values()) == found["file_bytes"]
