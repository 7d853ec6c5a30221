"""Budgets: what is written keeps them, tighter ones never raise less, and verify holds the line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reference.attention import drift
from reference.reader import read

from support.captures import canonical_capture, kv_bits, per_layer_capture, safetensors_bytes
from support.real import floats, tensors
from support.shell import done, kvq, left_alone, process, refused
from support.surgery import canonical, put_together, take_apart

LAYERS, HEADS, TOKENS, CHANNELS, ASKED = 2, 2, 150, 32, 6
POSITIONS = (3, 60, 149, 100, 12, 80)
SHAPE = (1, LAYERS, 2 * HEADS, ASKED, CHANNELS)
METRIC = {
    "max_logit_mse": "logit_mse",
    "max_attention_tv": "attention_tv",
    "max_topk_disagreement": "topk_disagreement",
    "max_value_aggregation_mse": "value_aggregation_mse",
    "min_attention_cosine": "attention_cosine",
}
# From loose to strict.
BOUNDS = {
    "max_logit_mse": (1e3, 0.3, 0.03, 1e-3, 0),
    "max_attention_tv": (1, 0.2, 0.05, 0.01, 0),
    "max_topk_disagreement": (1, 0.3, 0.15, 0.05, 0),
    "max_value_aggregation_mse": (1e3, 0.1, 0.01, 1e-3, 0),
    "min_attention_cosine": (-1, 0.98, 0.995, 0.9995, 1),
    "max_relative_mse": (1, 0.02, 0.01, 0.004, 0),
}
KEYS = {"role": "key", "codec": {"name": "int4", "group": 32}}
VALUES = {"codec": {"name": "int4", "group": 32}}


def profile_of(budget, **more):
    value = {"schema": "kvq_profile_v1", "name": "budgeted", "page_tokens": 32}
    return value | {"rules": [KEYS, VALUES], "budget": budget} | more


@pytest.fixture
def folder(tmp_path):
    """A capture with its queries in a file beside it."""
    cache = canonical_capture(layers=LAYERS, heads=HEADS, tokens=TOKENS, channels=CHANNELS)
    (tmp_path / "cache").write_bytes(cache)
    asked = kv_bits(SHAPE, "F16", 9)
    found = {
        "query": ("F16", SHAPE, (asked & 0xFBFF).tobytes()),
        "positions": ("I64", (ASKED,), np.array(POSITIONS, "<i8").tobytes()),
    }
    (tmp_path / "q").write_bytes(safetensors_bytes(found))
    return tmp_path


def compressed(folder, budget, *more, **profile):
    (folder / "p.json").write_text(json.dumps(profile_of(budget, **profile)))
    call = ["compress", folder / "cache", "-f", "-p", folder / "p.json", "--json", *more]
    if not more:
        call += ["--queries", folder / "q"]
    return done(*call).result


def worst_of(folder):
    """The worst of each metric over layers and query heads, on the restored file, by NumPy."""
    done("decompress", folder / "cache.kvq", "-f", "-o", folder / "back")
    sides = []
    for each in (folder / "cache", folder / "back"):
        found = {name: floats(dtype, bits) for name, dtype, bits in tensors(each)}
        sides.append((found["key"][0], found["value"][0]))
    queries = {name: bits for name, _, bits in tensors(folder / "q")}["query"]
    asked = floats("F16", queries)[0]
    sees = [position + 1 for position in POSITIONS]
    found = {}
    for layer in range(LAYERS):
        before, after = ((keys[layer], values[layer]) for keys, values in sides)
        for name, each in drift(asked[layer], sees, before, after, CHANNELS**-0.5).items():
            found.setdefault(name, []).extend(each)
    return {
        bound: (min if bound.startswith("min_") else max)(found[name])
        for bound, name in METRIC.items()
    }


def relative_mse(folder):
    """The largest of any head of any page."""
    done("decompress", folder / "cache.kvq", "-f", "-o", folder / "back")
    losses = []
    both = zip(tensors(folder / "cache"), tensors(folder / "back"), strict=True)
    for (_, dtype, before), (_, _, after) in both:
        one, other = floats(dtype, before), floats(dtype, after)
        for start in range(0, TOKENS, 32):
            page = slice(start, min(start + 32, TOKENS))
            gaps = ((one - other)[..., page, :] ** 2).sum(axis=(-1, -2))
            losses += (gaps / (one[..., page, :] ** 2).sum(axis=(-1, -2))).reshape(-1).tolist()
    return max(losses)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", BOUNDS)
def test_what_is_written_keeps_the_budget(name, layers, folder):
    """From loose to strict: measured from the restored file it holds, and the file only grows."""
    sizes, raw = [], []
    for bound in BOUNDS[name]:
        report = compressed(folder, {name: bound}, page_layers=layers)
        sizes.append(report["file_bytes"])
        raw.append(report["raw_pages"].get("budget", 0))
        found = relative_mse(folder) if name == "max_relative_mse" else worst_of(folder)[name]
        assert found >= bound if name.startswith("min_") else found <= bound, (bound, found)
        done(
            "verify", folder / "cache.kvq", "--against", folder / "cache", "--queries", folder / "q"
        )
    assert sizes == sorted(sizes)
    assert raw == sorted(raw)
    assert raw[0] == 0
    assert raw[-1] > 0
    assert len(set(raw)) >= 3, "some pages, not all or none"


def test_all_bounds_together(folder):
    """The strictest decides."""
    budget = {name: bounds[2] for name, bounds in BOUNDS.items()}
    compressed(folder, budget)
    for name, found in worst_of(folder).items():
        assert found >= budget[name] if name.startswith("min_") else found <= budget[name], name
    assert relative_mse(folder) <= budget["max_relative_mse"]


def test_bytes_do_not_depend_on_threads_or_blocks(folder, monkeypatch):
    """One root, whatever is measured together."""
    budget = {"max_attention_tv": 0.05, "min_attention_cosine": 0.995}
    roots = {compressed(folder, budget, "-T", 1, "--queries", folder / "q")["content_root"]}
    roots.add(compressed(folder, budget, "-T", 3, "--queries", folder / "q")["content_root"])
    monkeypatch.setattr("kvq_cli.steps.trial.KEPT", 1)
    roots.add(compressed(folder, budget, "-T", 1, "--queries", folder / "q")["content_root"])
    assert len(roots) == 1


def test_only_heads_that_break_it_are_raised(folder):
    """A page of which one head is raw is split; the other reader knows each page and its reason."""
    compressed(folder, {"max_attention_tv": 0.05})
    container = read(folder / "cache.kvq")
    reasons = {(page.reason, page.codec) for page in container.pages}
    raw = container.header.content["codecs"][0]["name"]
    assert raw == "raw"
    assert {reason for reason, codec in reasons if codec == 0} == {2}
    values = [page for page in container.pages if page.role == 1]
    assert all(page.reason == 0 for page in values), "values do not turn attention"


def levels(folder):
    """The codec of each role, layer, head and first token, where it is not the rule's."""
    content = read(folder / "cache.kvq").header.content
    rule = content["codecs"][1]["name"]
    return {
        (page.role, layer, head, page.start): name
        for page in read(folder / "cache.kvq").pages
        for layer in range(page.layer, page.layer + page.layers)
        for head in content["head_sets"][page.head_set]
        if (name := content["codecs"][page.codec]["name"]) != rule
    }


@pytest.mark.parametrize("name", ["max_attention_tv", "max_relative_mse"])
def test_a_violation_in_one_layer_raises_its_group(name, folder):
    """What one layer needs by itself the others get too, for that head and those tokens."""
    ladder = {"ladder": [{"codec": {"name": "int8", "center": True}}]}
    budget = {"max_attention_tv": 0.03, "max_relative_mse": 0.004}
    compressed(folder, {name: budget[name]} | ladder)
    alone = levels(folder)
    compressed(folder, {name: budget[name]} | ladder, page_layers=LAYERS)
    group = levels(folder)
    assert alone.keys() <= group.keys()
    assert {group[place] for place in alone if alone[place] == "raw"} <= {"raw"}
    halves = [{(role, *rest): codec for (role, layer, *rest), codec in group.items() if layer == at}
              for at in range(LAYERS)]  # fmt: skip
    assert halves[0] == halves[1]
    places = {(role, *rest) for role, _, *rest in alone}
    if name == "max_relative_mse":
        assert set(halves[0]) == places, "pages are looked at one by one: none is raised for more"


@pytest.mark.parametrize(("layers", "codecs"), [(1, {1: "token", 0: "channel"}), (2, None)])
def test_layers_that_want_unlike_rungs(layers, codecs, tmp_path):
    """What holds one layer does not hold the other: their pages end raw, and never go back."""
    scales = np.random.default_rng(0).uniform(0.1, 1, (32, 1))
    signs = np.where(np.arange(32 * 32).reshape(32, 32) % 3, 1, -1)
    rows = np.stack([signs * scales.T, signs * scales]).astype("<f2")[None, :, None]
    key = ("F16", rows.shape, rows.tobytes())
    (tmp_path / "cache").write_bytes(safetensors_bytes({"key": key}))
    rungs = [{"codec": {"name": "kivi", "bits": 2, "axis": axis}} for axis in ("channel", "token")]
    told = profile_of({"max_relative_mse": 0.01, "ladder": rungs}, page_layers=layers)
    told |= {"rules": [{"codec": {"name": "turboquant_mse", "bits": 2}}]}
    (tmp_path / "p.json").write_text(json.dumps(told))
    done("compress", tmp_path / "cache", "-p", tmp_path / "p.json")
    container = read(tmp_path / "cache.kvq")
    stated = container.header.content["codecs"]
    found = {page.layer: stated[page.codec]["params"].get("axis") for page in container.pages}
    assert found == (codecs or {0: None})
    assert {page.reason for page in container.pages} == ({0} if codecs else {2})
    done("verify", tmp_path / "cache.kvq", "--against", tmp_path / "cache")


def test_a_ladder_comes_before_raw(folder):
    """Pages get int8 where that is enough: nothing raw, and a smaller file."""
    bound = {"max_attention_tv": 0.03}
    plain = compressed(folder, bound)
    ladder = compressed(folder, bound | {"ladder": [{"codec": {"name": "int8", "center": True}}]})
    assert ladder["file_bytes"] < plain["file_bytes"]
    assert ladder["raw_pages"].get("budget", 0) < plain["raw_pages"]["budget"]
    assert worst_of(folder)["max_attention_tv"] <= 0.03
    strict = {"max_attention_tv": 0, "ladder": [{"role": "value", "codec": "int8"}]}
    assert compressed(folder, strict)["raw_pages"]["budget"] > 0
    assert worst_of(folder)["max_attention_tv"] == 0


def test_a_ladder_that_helps_nobody(folder):
    """The next level is tried, and at the last one there always is an end."""
    rung = {"codec": {"name": "int4", "group": 64}}
    report = compressed(folder, {"max_attention_tv": 1e-6, "ladder": [rung, rung]})
    assert report["raw_pages"]["budget"] > 0
    assert worst_of(folder)["max_attention_tv"] <= 1e-6


def test_fail_closed_writes_nothing(folder):
    """One line with the bound, the figure and the place."""
    compressed(folder, {"max_attention_tv": 1, "on_violation": "fail_closed"})
    (folder / "cache.kvq").unlink()
    budget = {"max_attention_tv": 0.01, "on_violation": "fail_closed"}
    (folder / "p.json").write_text(json.dumps(profile_of(budget)))
    with left_alone(folder):
        ran = kvq("compress", folder / "cache", "-p", folder / "p.json", "--queries", folder / "q")
        refused(ran, 1, "E806", "max_attention_tv 0.01: 0.", "head", "fails closed")


def test_a_ladder_that_is_enough_does_not_fail(folder):
    """fail_closed is about raw pages."""
    budget = {"max_attention_tv": 0.04, "on_violation": "fail_closed"}
    rung = {"codec": {"name": "int8", "center": True}}
    compressed(folder, budget | {"ladder": [rung]})
    assert worst_of(folder)["max_attention_tv"] <= 0.04


@pytest.mark.parametrize(("more", "probe"), [((), "file"), (("--queries", "self"), "self")])
def test_the_container_says_who_was_asked(more, probe, folder):
    """Probe and digest in the header; without any queries the last keys stand in."""
    compressed(folder, {"max_attention_tv": 0.05}, *more)
    content = read(folder / "cache.kvq").header.content
    assert content["probe"] == probe
    assert (content["queries_digest"] is None) == (probe == "self")
    compressed(folder, {"max_attention_tv": 0.05}, "-T", 1)
    content = read(folder / "cache.kvq").header.content
    assert content["probe"] == "self"
    compressed(folder, {"max_relative_mse": 0.05}, "-T", 1)
    content = read(folder / "cache.kvq").header.content
    assert content["probe"] == "none"


def test_verify_holds_the_line(folder):
    """The profile's bounds and further ones, without the capture and next to it."""
    compressed(folder, {"max_attention_tv": 0.05})
    box, further = folder / "cache.kvq", folder / "b.json"
    told = done("verify", box, "--json").result["quality"]["max_attention_tv"]
    assert 0 < told["value"] <= 0.05
    further.write_text('{"max_attention_tv": 0.05}')
    done("verify", box, "--budget", further)
    further.write_text('{"max_attention_tv": 0.001}')
    refused(kvq("verify", box, "--budget", further), 1, "E806", "max_attention_tv 0.001")
    further.write_text('{"min_attention_cosine": 0.5}')
    refused(kvq("verify", box, "--budget", further), 1, "E806", "nothing was measured")
    beside = ["--against", folder / "cache", "--queries", folder / "q"]
    done("verify", box, "--budget", further, *beside)
    again = done("verify", box, "--json", *beside).result["quality"]["max_attention_tv"]
    assert again["value"] == pytest.approx(told["value"], rel=1e-4)
    assert (again["layer"], again["head"]) == (told["layer"], told["head"])
    further.write_text(json.dumps(profile_of({"min_attention_cosine": 0.99999})))
    refused(kvq("verify", box, "--budget", further, *beside), 1, "E806", "min_attention_cosine")


def test_notes_of_what_could_not_be_measured(folder):
    """Other queries, or none."""
    compressed(folder, {"max_attention_tv": 0.05})
    box = folder / "cache.kvq"
    (note,) = done("verify", box, "--against", folder / "cache", "--json").result["notes"]
    assert "--queries" in note
    piped = process("verify", "-", "--against", folder / "cache", "--json", stdin=box.read_bytes())
    assert piped.code == 0, piped.err
    assert "pipe" in piped.result["notes"][0]
    ran = kvq("verify", box, "--against", folder / "cache", "--queries", "self", "--json")
    assert "other queries" in ran.result["notes"][0]


def test_quality_that_is_not_the_profiles(folder):
    """A container that lost its qual chunk, or tells of other bounds, or lies, is found out."""
    compressed(folder, {"max_attention_tv": 0.05})
    whole = (folder / "cache.kvq").read_bytes()
    chunks = take_apart(whole)["chunks"]
    at = next(at for at, chunk in enumerate(chunks) if chunk["type"] == "qual")
    payload = json.loads(bytes.fromhex(chunks[at]["payload"]))
    assert payload["schema"] == "kvq_quality_v1"

    def verified(change):
        body = take_apart(whole)
        change(body["chunks"])
        (folder / "other.kvq").write_bytes(put_together(body))
        return kvq("verify", folder / "other.kvq")

    def telling(value):
        def change(chunks):
            chunks[at]["payload"] = canonical(value).hex()

        return change

    done("verify", folder / "cache.kvq")
    refused(verified(lambda chunks: chunks.pop(at)), 1, "E806", "not what the profile bounds")
    loose = payload | {"bounds": {"max_attention_tv": 0.5}}
    refused(verified(telling(loose)), 1, "E806", "not what the profile bounds")
    worse = {"max_attention_tv": {"value": 0.06, "layer": 1, "head": 0}}
    refused(verified(telling(payload | {"worst": worse})), 1, "E806", "0.06 in layer 1, head 0")
    for value in (
        [],
        payload | {"schema": "x"},
        payload | {"worst": {"max_logit_mse": worse["max_attention_tv"]}},
        payload | {"worst": {"max_attention_tv": {"value": "x", "layer": 1, "head": 0}}},
        payload | {"worst": {"max_attention_tv": {"value": 0.1, "layer": -1, "head": 0}}},
        payload | {"bounds": {"max_attention_tv": 1}},
        payload | {"bounds": {"max_everything": 1.0}, "worst": {}},
    ):
        refused(verified(telling(value)), 3, "E304", "qual")


def test_stats_keep_the_budget_too(folder):
    """What if: the same file as compress would write."""
    report = compressed(folder, {"max_attention_tv": 0.05})
    told = done(
        "stats", folder / "cache", "-p", folder / "p.json", "--queries", folder / "q", "--json"
    ).result
    assert told["content_root"] == report["content_root"]
    assert told["raw_pages"] == report["raw_pages"]
    worst = max(row["attention_tv"] for row in told["attention"] if row["head"] is not None)
    assert worst <= 0.05


def test_queries_without_a_budget(folder):
    """An option that would do nothing is refused."""
    ran = kvq("compress", folder / "cache", "-p", "int8", "--queries", folder / "q")
    refused(ran, 2, "E101", "--queries")
    done("compress", folder / "cache", "-p", "int8")
    ran = kvq("verify", folder / "cache.kvq", "--queries", folder / "q")
    refused(ran, 2, "E101", "--queries")
    (folder / "b.json").write_text('{"max_attention_tv": 0.1}')
    refused(
        kvq("verify", folder / "cache.kvq", "--quick", "--budget", folder / "b.json"), 2, "E101"
    )
    (folder / "b.json").write_text("{}")
    refused(kvq("verify", folder / "cache.kvq", "--budget", folder / "b.json"), 3, "E401", "bound")


@pytest.mark.parametrize("tokens", [1, 2, 32, 33])
def test_few_tokens(tokens, tmp_path):
    """One token, a boundary; with keys of their own for queries."""
    (tmp_path / "cache").write_bytes(canonical_capture(tokens=tokens, channels=32))
    (tmp_path / "p.json").write_text(json.dumps(profile_of({"max_attention_tv": 0.001})))
    done("compress", tmp_path / "cache", "-p", tmp_path / "p.json")
    done("verify", tmp_path / "cache.kvq", "--against", tmp_path / "cache")


def test_odd_captures(tmp_path):
    """Ragged layers, keys alone, numbers that are not finite, protected tokens, float32."""
    odd = {
        "ragged": per_layer_capture(tokens=(40, 150), channels=32),
        "keys": canonical_capture(roles=["key"], channels=32, tokens=40),
        "wide": canonical_capture(dtype="F32", channels=32, tokens=40),
    }
    broken = bytearray(canonical_capture(tokens=40, channels=32))
    broken[-2:] = b"\xff\x7f"
    odd["non-finite"] = bytes(broken)
    budget = {"min_attention_cosine": 0.9999, "max_attention_tv": 0.01, "max_relative_mse": 0.01}
    profile = profile_of(budget, protected={"first_tokens": 4, "last_tokens": 3})
    (tmp_path / "p.json").write_text(json.dumps(profile))
    for name, cache in odd.items():
        path = tmp_path / name
        path.write_bytes(cache)
        done("compress", path, "-p", tmp_path / "p.json")
        done("verify", f"{path}.kvq", "--against", path)
