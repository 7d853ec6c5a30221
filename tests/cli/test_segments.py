"""Segments: tokens after a container, joined to it, and nothing else joined."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support.captures import canonical_capture, kv_bits, per_layer_capture, safetensors_bytes
from support.shell import done, kvq, left_alone, refused

LAYERS, HEADS, CHANNELS = 2, 3, 8
BITS = {role: kv_bits((1, LAYERS, HEADS, 40, CHANNELS), "F16", at) for at, role in enumerate("kv")}
ROLES = {"key": "k", "value": "v"}


def part(path: Path, start: int, stop: int, layout: str = "canonical") -> Path:
    """The tokens of one cache from start to stop, as a capture."""
    tensors = {}
    for role, name in ROLES.items():
        bits = BITS[name][:, :, :, start:stop]
        if layout == "canonical":
            tensors[role] = ("F16", bits.shape, bits.tobytes())
        else:
            for layer in range(LAYERS):
                rows = np.ascontiguousarray(bits[:, layer])
                tensors[f"layers.{layer}.{role}"] = ("F16", rows.shape, rows.tobytes())
    path.write_bytes(safetensors_bytes(tensors))
    return path


def pack(capture: Path, *words: object) -> Path:
    box = capture.with_suffix(".kvq")
    done("compress", "-q", capture, "-o", box, *words)
    return box


def bits_of(path: Path, role: str, layer: int) -> np.ndarray:
    """(H, T, D) bits of a canonical capture."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])[role]
    begin = 8 + length + entry["data_offsets"][0]
    whole = np.frombuffer(data, "<u2", count=np.prod(entry["shape"]), offset=begin)
    return whole.reshape(entry["shape"])[0, layer]


def check_tokens(path: Path, start: int, stop: int) -> None:
    for role, name in ROLES.items():
        for layer in range(LAYERS):
            expected = BITS[name][0, layer, :, start:stop]
            assert np.array_equal(bits_of(path, role, layer), expected)


@pytest.fixture
def chain(tmp_path):
    """Tokens 0 to 17, 17 to 18 and 18 to 40."""
    boxes = []
    for name, start, stop in (("a", 0, 17), ("b", 17, 18), ("c", 18, 40)):
        words = ["--continues", boxes[-1]] if boxes else []
        boxes.append(pack(part(tmp_path / f"{name}.st", start, stop), *words))
    return boxes


@pytest.mark.parametrize("count", [2, 3])
def test_join(chain, tmp_path, count):
    """Rows follow each other; each by itself is the capture that was given."""
    done("decompress", *chain[:count], "-o", tmp_path / "whole")
    check_tokens(tmp_path / "whole", 0, (17, 18, 40)[count - 1])
    for box in chain:
        done("decompress", box, "-o", tmp_path / "own", "-f")
        assert (tmp_path / "own").read_bytes() == box.with_suffix(".st").read_bytes()


def test_slices_and_layouts_of_a_chain(chain, tmp_path):
    """Tokens count through, whichever container holds them; so do those from the end."""
    for tokens, start, stop in (("16:20", 16, 20), ("-2:", 38, 40), ("17", 17, 18), ("0:3", 0, 3)):
        done("decompress", *chain, "-f", "--tokens", tokens, "-o", tmp_path / "cut")
        check_tokens(tmp_path / "cut", start, stop)
    done("decompress", *chain, "--layout", "hf", "-o", tmp_path / "hf")
    done("compress", tmp_path / "hf", "-q", "-o", tmp_path / "hf.kvq")
    done("decompress", tmp_path / "hf.kvq", "--layout", "canonical", "-o", tmp_path / "back")
    check_tokens(tmp_path / "back", 0, 40)


def test_reports(chain, tmp_path):
    """The report counts containers and all their bytes; inspect names what a segment follows."""
    ran = done("decompress", "--json", *chain, "-o", tmp_path / "x")
    (result,) = json.loads(ran.out)["results"]
    assert result["containers"] == 3
    assert result["file_bytes"] == sum(box.stat().st_size for box in chain)
    (base,) = json.loads(done("inspect", "--json", chain[0]).out)["results"]
    (found,) = json.loads(done("inspect", "--json", chain[1]).out)["results"]
    assert (found["token_offset"], found["continues"]) == (17, base["content_root"])
    assert (base["token_offset"], base["continues"]) == (0, None)


def test_gaps_overlaps_and_strangers(chain, tmp_path):
    """Only what continues the container before it is joined."""
    again = pack(part(tmp_path / "b2.st", 17, 30), "--continues", chain[0])
    stranger = tmp_path / "s.st"
    stranger.write_bytes(canonical_capture(layers=2, heads=3, tokens=17, channels=8))
    stranger = pack(stranger)
    wrong = [
        (chain[0], chain[2]),  # a gap
        (chain[0], chain[1], again),  # an overlap
        (stranger, chain[1]),
        (chain[1], chain[0], chain[1]),  # the middle one begins a chain of its own
    ]
    for boxes in wrong[:3]:
        with left_alone(tmp_path):
            refused(kvq("decompress", *boxes, "-o", tmp_path / "x"), 1, "E808", "continues")
    with left_alone(tmp_path):
        refused(kvq("decompress", *wrong[3], "-o", tmp_path / "x"), 2, "E101")


def test_verify_a_link(chain):
    """verify --continues holds a segment against what comes before it."""
    done("verify", "-q", chain[1], "--continues", chain[0])
    for box, before in ((chain[1], chain[2]), (chain[2], chain[0]), (chain[0], chain[1])):
        ran = kvq("verify", box, "--continues", before)
        assert (ran.code, "KVQ-E808" in ran.err) == (1, True)


@pytest.mark.parametrize("layout", ["canonical", "hf"])
def test_full(chain, tmp_path, layout):
    """Of a capture of all tokens, those are stored that the chain lacks."""
    whole = part(tmp_path / "whole.st", 0, 40, layout)
    box = pack(whole, "--continues", chain[1], "--full")
    done("decompress", *chain[:2], box, "-o", tmp_path / "joined")
    check_tokens(tmp_path / "joined", 0, 40)
    done("decompress", box, "--layout", "canonical", "-o", tmp_path / "own")
    check_tokens(tmp_path / "own", 18, 40)
    roots = [json.loads(done("inspect", "--json", each).out)["results"][0] for each in (box,)]
    assert roots[0]["token_offset"] == 18


def test_full_is_held_against_the_chain(chain, tmp_path):
    """Another beginning, or no more tokens than the chain has, is refused."""
    whole = part(tmp_path / "w.st", 0, 40)
    data = bytearray(whole.read_bytes())
    length = int.from_bytes(data[:8], "little")
    data[8 + length] ^= 1  # the first key
    (tmp_path / "bent.st").write_bytes(data)
    short = part(tmp_path / "short.st", 0, 17)
    with left_alone(tmp_path):
        for capture, word in ((tmp_path / "bent.st", "layer 0"), (short, "17 tokens")):
            words = ("--continues", chain[0], "--full", "-o", tmp_path / "x")
            refused(kvq("compress", capture, *words), 1, "E808", word)
        refused(kvq("compress", whole, "--full", "-o", tmp_path / "x"), 2, "E101", "--continues")


def test_another_shape(chain, tmp_path):
    """Layers, heads, channels, dtype and roles are those of the chain."""
    sizes = {"layers": 2, "heads": 3, "tokens": 4, "channels": 8}
    others = [
        sizes | {"layers": 3},
        sizes | {"layers": 1},
        sizes | {"heads": 1},
        sizes | {"channels": 4},
        sizes | {"dtype": "BF16"},
        sizes | {"roles": ("key",)},
        sizes | {"batch": 2},
    ]
    for at, told in enumerate(others):
        capture = tmp_path / f"{at}.st"
        capture.write_bytes(canonical_capture(**told))
        with left_alone(tmp_path):
            ran = kvq("compress", capture, "--continues", chain[0], "-o", tmp_path / "x")
            refused(ran, 1, "E808", "layer")


def test_protected_tokens_count_from_the_start(tmp_path):
    """The first tokens are those of the chain, the last ones those of the segment."""
    profile = tmp_path / "p.json"
    rules = [
        {"codec": "raw", "role": "key", "tokens": [[6, 9]]},
        {"codec": "int8"},
    ]
    told = {"schema": "kvq_profile_v1", "name": "p", "rules": rules}
    profile.write_text(json.dumps(told | {"protected": {"first_tokens": 5, "last_tokens": 2}}))
    base = pack(part(tmp_path / "a.st", 0, 3), "-p", profile)
    after = pack(part(tmp_path / "b.st", 3, 20), "-p", profile, "--continues", base)
    (found,) = json.loads(done("inspect", "--pages", "--json", after).out)["results"]
    raw = {
        role: sorted(
            tuple(page["tokens"])
            for page in found["pages"]
            if (page["role"], page["layer"], page["codec"]) == (role, 0, "raw")
        )
        for role in ("key", "value")
    }
    assert raw == {"key": [(0, 2), (3, 6), (15, 17)], "value": [(0, 2), (15, 17)]}


def test_ragged(tmp_path):
    """Layers of unlike length are joined each for itself."""
    base, more = tmp_path / "a.st", tmp_path / "b.st"
    base.write_bytes(per_layer_capture(tokens=(5, 9), heads=2, channels=8))
    more.write_bytes(per_layer_capture(tokens=(3, 3), heads=2, channels=8))
    box = pack(base)
    after = pack(more, "--continues", box)
    done("decompress", box, after, "-o", tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    shapes = [header[f"layers.{layer}.key"]["shape"] for layer in (0, 1)]
    assert shapes == [[1, 2, 8, 8], [1, 2, 12, 8]]
    (found,) = json.loads(done("inspect", "--json", after).out)["results"]
    assert found["token_offset"] == 9


def test_pipes_and_missing_bases(chain, tmp_path):
    """What a segment follows is a file, there and whole."""
    capture = part(tmp_path / "d.st", 0, 2)
    refused(kvq("compress", capture, "--continues", "-", "-o", tmp_path / "x"), 2, "E101")
    refused(kvq("compress", capture, "--continues", tmp_path / "no", "-o", "-"), 6, "E601")
    cut = tmp_path / "cut.kvq"
    cut.write_bytes(chain[0].read_bytes()[:-1])
    refused(kvq("compress", capture, "--continues", cut, "-o", tmp_path / "x"), 3, "E302")


def queries_of(path: Path) -> Path:
    """Queries of the last tokens, two heads for each kv head."""
    positions = np.array([12, 30, 33, 39], "<i8")
    shape = (1, LAYERS, 2 * HEADS, len(positions), CHANNELS)
    bits = kv_bits(shape, "F16", 9) & 0xFBFF
    tensors = {
        "query": ("F16", shape, bits.tobytes()),
        "positions": ("I64", positions.shape, positions.tobytes()),
    }
    path.write_bytes(safetensors_bytes(tensors))
    return path


@pytest.mark.parametrize("asked", ["file", "self"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_budgets_look_at_the_whole_chain(tmp_path, asked, full, layers):
    """Of the segment the pages stay raw that would of a capture whose other tokens are raw."""
    budget = {"max_attention_tv": 0.006, "max_value_aggregation_mse": 0.002}
    told = {"schema": "kvq_profile_v1", "name": "p", "page_tokens": 4, "budget": budget}
    told["page_layers"] = layers
    int4 = {"codec": {"name": "int4", "group": 32}}
    (tmp_path / "p.json").write_text(json.dumps(told | {"rules": [int4]}))
    base_raw = {"codec": "raw", "tokens": [[0, 16]]}
    (tmp_path / "w.json").write_text(json.dumps(told | {"rules": [base_raw, int4]}))
    queries = ("--queries", queries_of(tmp_path / "q") if asked == "file" else "self")
    whole = pack(part(tmp_path / "w.st", 0, 40), "-p", tmp_path / "w.json", *queries)
    boxes = [pack(part(tmp_path / "a.st", 0, 12))]
    boxes.append(pack(part(tmp_path / "b.st", 12, 16), "--continues", boxes[0]))
    chain = [word for box in boxes for word in ("--continues", box)]
    given = part(tmp_path / "c.st", 0, 40) if full else part(tmp_path / "c.st", 16, 40)
    words = ["--full"] if full else []
    after = pack(given, "-p", tmp_path / "p.json", *queries, *chain, *words)
    found = [raw_pages(whole, 16), raw_pages(after, 0)]
    assert found[0] == found[1]
    lossy = 2 * LAYERS * HEADS * 6 // layers
    assert 0 < len(found[0]) < lossy
    done("verify", after)
    if not full:
        for command, note in (("verify", "not measured again"), ("stats", "not measured")):
            (result,) = json.loads(done(command, "--json", after, "--against", given).out)[
                "results"
            ]
            assert note in result["notes"][-1]
    # Without the first container nobody knows what its tokens are.
    with left_alone(tmp_path):
        few = ("compress", given, "-p", tmp_path / "p.json", *queries, *chain[2:], *words)
        refused(kvq(*few, "-o", tmp_path / "x"), 2, "E101", "every container")


def layered(path: Path, count: int, codec: str) -> Path:
    """A profile whose pages hold so many layers."""
    told = {"schema": "kvq_profile_v1", "name": "p", "page_tokens": 8, "rules": [{"codec": codec}]}
    path.write_text(json.dumps(told | {"page_layers": count}))
    return path


@pytest.mark.parametrize("full", [False, True])
def test_pages_of_several_layers_are_joined(tmp_path, full):
    """Segments group layers each in its own way; rows follow each other all the same."""
    names, boxes = zip("abc", (2, 1, 3), ((0, 17), (17, 18), (18, 40)), strict=True), []
    for name, count, (start, stop) in names:
        profile = layered(tmp_path / f"{name}.json", count, "lossless")
        words = ["--continues", boxes[-1]] if boxes else []
        if full and boxes:
            words = [word for box in boxes for word in ("--continues", box)] + ["--full"]
        source = part(tmp_path / f"{name}.st", 0 if words[2:] else start, stop, "hf")
        boxes.append(pack(source, "-p", profile, *words))
    done("decompress", *boxes, "-o", tmp_path / "whole", "--layout", "canonical")
    check_tokens(tmp_path / "whole", 0, 40)
    chosen = ("--layers", "1", "--heads", "2", "--tokens", "5,16:20,39", "--layout", "canonical")
    done("decompress", *boxes, *chosen, "-o", tmp_path / "cut")
    for role, bits in BITS.items():
        word = {name: role for role, name in ROLES.items()}[role]
        expected = bits[0, 1, 2:, [5, *range(16, 20), 39]].swapaxes(0, 1)
        assert np.array_equal(bits_of(tmp_path / "cut", word, 0), expected)


def test_full_holds_pages_of_several_layers_against_the_capture(tmp_path):
    """A chain whose rows of the second layer of a page are others is refused."""
    box = pack(part(tmp_path / "a.st", 0, 17), "-p", layered(tmp_path / "p", 2, "int8"))
    done("compress", part(tmp_path / "b.st", 0, 40), "--continues", box, "--full", "-o",
         tmp_path / "b.kvq")  # fmt: skip
    other = bytearray((tmp_path / "b.st").read_bytes())
    start = 8 + int.from_bytes(other[:8], "little")
    other[start + 2 * HEADS * 40 * CHANNELS] ^= 1  # the first element of layer 1
    (tmp_path / "b.st").write_bytes(other)
    ran = kvq("compress", tmp_path / "b.st", "--continues", box, "--full", "-o", tmp_path / "x")
    refused(ran, 1, "E808", "key, layers 0:2, tokens 0 on")


def test_layers_of_a_page_may_begin_at_other_tokens_of_the_whole(tmp_path):
    """Sliding windows: layers alike in a segment, of which others hold fewer tokens before."""
    for names, tokens in (("ac", (5, 9, 9)), ("bd", (6, 6, 6))):
        capture = per_layer_capture(tokens=tokens, heads=HEADS, channels=CHANNELS)
        for name in names:
            (tmp_path / f"{name}.st").write_bytes(capture)
    profile = layered(tmp_path / "p", 3, "lossless")
    boxes = [pack(tmp_path / "a.st", "-p", profile)]
    boxes.append(pack(tmp_path / "b.st", "-p", profile, "--continues", boxes[0]))
    (found,) = json.loads(done("inspect", "--pages", "--json", boxes[1]).out)["results"]
    assert {page["layers"] for page in found["pages"]} == {3}
    done("decompress", *boxes, "-o", tmp_path / "whole")
    plain = [pack(tmp_path / "c.st")]
    plain.append(pack(tmp_path / "d.st", "--continues", plain[0]))
    done("decompress", *plain, "-o", tmp_path / "other")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "other").read_bytes()
    for words in (("--tokens", "3:11"), ("--layers", "0:2", "--tokens", "-3:", "--heads", "1")):
        backs = []
        for chosen in (boxes, plain):
            done("decompress", *chosen, *words, "-f", "-o", tmp_path / "cut")
            backs.append((tmp_path / "cut").read_bytes())
        assert backs[0] == backs[1]


def raw_pages(box: Path, before: int) -> list[tuple[object, ...]]:
    """Role, layer, heads and tokens of pages that a budget keeps raw, counted from `before`."""
    (found,) = json.loads(done("inspect", "--pages", "--json", box).out)["results"]
    return sorted(
        (page["role"], page["layer"], page["heads"], page["tokens"][0] - before)
        for page in found["pages"]
        if page["reason"] == "budget"
    )
