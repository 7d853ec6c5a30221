"""The codec transform from `kvq calibrate` to restored files: calibrations, targets, budgets."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reference.reader import Refused, read
from safetensors.numpy import load_file

import kvq_cli
from support.bases import of_layers
from support.captures import kv_values, safetensors_bytes
from support.real import floats, tensors
from support.shell import done, kvq, left_alone, refused

LAYERS, HEADS, CHANNELS, TOKENS = 3, 2, 8, 70
META = {"rope_state": "post", "rope_theta": "10000"}
SHAPE = (1, LAYERS, HEADS, TOKENS, CHANNELS)
STEP = 2000


def capture(seed=0, tokens=TOKENS, dtype="F16", metadata=META, change=None):
    """Rows that a few common factors make, and a little noise."""
    found = {}
    for at, role in enumerate(("key", "value")):
        shape = (1, LAYERS, HEADS, tokens, CHANNELS)
        noise = kv_values(shape, 7 * seed + at)
        factors = np.random.default_rng(at).standard_normal((3, LAYERS * HEADS * CHANNELS))
        common = np.random.default_rng(seed + 99).standard_normal((tokens, 3)) @ factors
        rows = common.reshape(tokens, LAYERS, HEADS, CHANNELS).transpose(1, 2, 0, 3)[None]
        values = (2 * rows + noise / 8).astype(np.float32)
        if change:
            change(role, values)
        words = values.view("<u4")
        if dtype == "F16":
            words = values.astype("<f2").view("<u2")
        elif dtype == "BF16":
            words = (words >> 16).astype("<u2")
        found[role] = (dtype, shape, np.ascontiguousarray(words).tobytes())
    return safetensors_bytes(found, metadata)


def profile(path, codec=None, **members):
    codec = {"name": "transform", "step": STEP} if codec is None else codec
    value = {"schema": "kvq_profile_v1", "name": "mine", "page_tokens": 32}
    path.write_text(json.dumps({**value, "rules": [{"codec": codec}], **members}))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two calibrations, of groups of two layers and of one, and a capture of another text."""
    folder = tmp_path_factory.mktemp("transform")
    for seed in (1, 2, 3):
        (folder / f"{seed}.safetensors").write_bytes(capture(seed, 120))
    texts = sorted(folder.glob("*.safetensors"))
    for layers in (1, 2):
        target = folder / f"{layers}.kvqcal"
        done("calibrate", *texts, "-o", target, "--layers", layers, "--weights", "variance")
    (folder / "cache").write_bytes(capture())
    return folder


def packed(made, tmp_path, *words, layers=2, source="cache", **members):
    """The report of a container box.kvq of the capture."""
    chosen = profile(tmp_path / "p.json", **members)
    call = ["compress", made / source, "-o", tmp_path / "box.kvq", "-f", "-p", chosen, "--json"]
    return done(*call, "--calibration", made / f"{layers}.kvqcal", *words).result


def restored(tmp_path, *words):
    done("decompress", tmp_path / "box.kvq", "-o", tmp_path / "back", "-f", *words)
    return (tmp_path / "back").read_bytes()


def relative_mse(one, other):
    """The larger of both roles."""
    losses = []
    for (_, *before), (_, *after) in zip(tensors(one), tensors(other), strict=True):
        x, y = floats(*before), floats(*after)
        losses.append(float(((x - y) ** 2).sum() / (x**2).sum()))
    return max(losses)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_there_and_back(layers, dtype, made, tmp_path):
    """Restored alike by both readers, near the capture, verified, measured, explained."""
    (made / f"cache-{dtype}").write_bytes(capture(dtype=dtype))
    source = made / f"cache-{dtype}"
    report = packed(made, tmp_path, source=source.name, layers=layers)
    assert (report["raw_pages"], report["notes"]) == ({}, [])
    back = restored(tmp_path)
    assert back == read(tmp_path / "box.kvq").source()
    assert relative_mse(source, tmp_path / "back") < 0.03
    done("verify", tmp_path / "box.kvq", "--against", source)
    shown = done("inspect", tmp_path / "box.kvq", "--pages", "--json").result
    found = sorted({(each["layer"], each["layers"]) for each in shown["pages"]})
    assert found == ([(0, 1), (1, 1), (2, 1)] if layers == 1 else [(0, 2), (2, 1)])
    told = done("stats", tmp_path / "box.kvq", "--against", source, "--json").result
    assert max(each["relative_mse"] for each in told["errors"]) < 0.1
    whatif = done(
        "stats", source, "-p", tmp_path / "p.json", "--calibration", made / f"{layers}.kvqcal",
        "--json",
    ).result  # fmt: skip
    assert whatif["errors"] == told["errors"]
    for other in {"f16", "bf16", "f32"} - {dtype.lower()}:
        restored(tmp_path, "--dtype", other)
        assert relative_mse(source, tmp_path / "back") < 0.03


def test_slices(made, tmp_path):
    """A layer, a head and some tokens come back as in the whole."""
    packed(made, tmp_path)
    restored(tmp_path)
    whole = {name: floats(dtype, bits) for name, dtype, bits in tensors(tmp_path / "back")}
    restored(tmp_path, "--layers", "1:2", "--heads", "1:2", "--tokens", "20:40")
    for name, dtype, bits in tensors(tmp_path / "back"):
        assert np.array_equal(floats(dtype, bits), whole[name][:, 1:2, 1:2, 20:40])
    with kvq_cli.open_container(tmp_path / "box.kvq") as box:
        rows = box.rows(kvq_cli.Role.KEY, 2, heads=[1], tokens=[69, 0, 33], dtype=None)
        found = floats("F16", rows.view("<u2"))
        assert np.array_equal(found, whole["key"][0, 2, 1:2][:, [69, 0, 33]])


@pytest.mark.parametrize("bits", [2.0, 4.0, 7.0])
def test_a_target_of_bits(bits, made, tmp_path):
    """Pages take no more, with what frames them, and nearly as much; the step is in the codec."""
    codec, target = {"name": "transform"}, {"bits": bits}
    report = packed(made, tmp_path, codec=codec, target=target, page_tokens=512)
    shown = done("inspect", tmp_path / "box.kvq", "--json").result
    (codec,) = [each for each in shown["codecs"] if each["name"] == "transform"]
    assert codec["params"]["step"] > 0
    elements = 2 * np.prod(SHAPE)
    frames = 320 * report["pages"]
    found = 8 * (report["packed_bytes"] + frames) / elements
    if report["notes"]:
        assert "out of reach" in report["notes"][0]
        assert found > bits
    else:
        assert bits * 0.9 < found <= bits


@pytest.mark.parametrize("bound", [0.1, 0.01, 0.000001])
def test_a_target_of_error(bound, made, tmp_path):
    """Neither role errs by more; what a calibration left out no step brings back."""
    report = packed(made, tmp_path, codec={"name": "transform"}, target={"relative_mse": bound})
    restored(tmp_path)
    found = relative_mse(made / "cache", tmp_path / "back")
    if report["notes"]:
        assert "out of reach" in report["notes"][0]
        assert found > bound
    else:
        assert bound / 2 < found <= bound * 1.0001


def test_which_calibration(made, tmp_path):
    """None, another than the profile names, no calibration at all, no word of positions."""
    chosen = profile(tmp_path / "p.json")
    call = ["compress", made / "cache", "-o", tmp_path / "box.kvq", "-p", chosen]
    digest = done("inspect", made / "1.kvqcal", "--json").result["digest"]
    with left_alone(tmp_path):
        refused(kvq(*call), 4, "E403", "calibration")
        refused(kvq(*call, "--calibration", made / "cache"), 3, "E401")
        refused(kvq(*call, "--calibration", tmp_path / "none"), 6, "E601")
    profile(tmp_path / "p.json", calibration_digest=digest)
    with left_alone(tmp_path):
        refused(kvq(*call, "--calibration", made / "2.kvqcal"), 1, "E402", digest)
    done(*call, "--calibration", made / "1.kvqcal")
    shown = done("inspect", tmp_path / "box.kvq", "--json").result
    assert shown["calibration_digest"] == digest
    (tmp_path / "unknown").write_bytes(capture(metadata={}))
    call[1] = tmp_path / "unknown"
    refused(kvq(*call, "-f", "--calibration", made / "1.kvqcal"), 2, "E101", "rope_state")
    told = ["-f", "--meta", "rope_state=pre", "--calibration", made / "1.kvqcal"]
    done(*call, *told)


def test_a_container_that_refers(made, tmp_path):
    """Smaller by the table, the same content; whoever decodes it needs the file, others do not."""
    whole = packed(made, tmp_path)
    expected = restored(tmp_path)
    report = packed(made, tmp_path, "--refer")
    assert report["content_root"] == whole["content_root"]
    assert report["file_bytes"] < whole["file_bytes"]
    box, given = tmp_path / "box.kvq", ["--calibration", made / "2.kvqcal"]
    done("verify", box)
    done("verify", box, *given)
    done("verify", box, "--against", made / "cache", *given)
    done("inspect", box, "--pages")
    with left_alone(tmp_path):
        refused(kvq("decompress", box, "-o", tmp_path / "new"), 4, "E403", "--calibration")
        refused(kvq("stats", box, "--against", made / "cache"), 4, "E403", "--calibration")
        other = ["--calibration", made / "1.kvqcal"]
        refused(kvq("decompress", box, "-o", tmp_path / "new", *other), 1, "E402")
        with pytest.raises(Refused):
            read(box)
    assert restored(tmp_path, *given) == expected
    table = load_file(made / "2.kvqcal")["basis"].tobytes()
    digest = done("inspect", box, "--json").result["tables"][0]["digest"]
    assert read(box, {digest: table}).source() == expected
    done("stats", box, "--against", made / "cache", *given)
    refused(kvq("compress", made / "cache", "--refer", "-o", box, "-f"), 2, "E101", "--refer")


SPOILED = {"non-finite": np.nan, "unsupported": 3e38}


@pytest.mark.parametrize("reason", SPOILED)
def test_a_page_that_cannot_be_held(reason, made, tmp_path):
    """All of it stays raw, or the profile fails closed; the others are as they were."""

    def change(role, rows):
        if role == "key":
            rows[0, 1, 1, 5, 3] = SPOILED[reason]

    (made / "plain").write_bytes(capture(dtype="BF16"))
    packed(made, tmp_path, source="plain")
    restored(tmp_path)
    (tmp_path / "back").rename(tmp_path / "before")
    (made / "spoiled").write_bytes(capture(dtype="BF16", change=change))
    report = packed(made, tmp_path, source="spoiled")
    assert report["raw_pages"] == {reason: 1}
    assert restored(tmp_path) == read(tmp_path / "box.kvq").source()
    shown = done("inspect", tmp_path / "box.kvq", "--pages", "--json").result
    (page,) = [each for each in shown["pages"] if each["codec"] == "raw"]
    assert (page["layers"], page["tokens"], page["heads"]) == (2, [0, 32], [0, 1])
    files = (made / "spoiled", tmp_path / "back", tmp_path / "before")
    for (name, _, source), (_, _, one), (_, _, other) in zip(*map(tensors, files), strict=True):
        first = (slice(None), slice(0, 2), slice(None), slice(0, 32))
        expected = other.copy()
        if name == "key":
            expected[first] = source[first]
        assert np.array_equal(one, expected)
    call = ["compress", made / "spoiled", "-f", "-o", tmp_path / "box.kvq"]
    call += ["-p", profile(tmp_path / "p.json", fallback="fail_closed")]
    refused(kvq(*call, "--calibration", made / "2.kvqcal"), 1, "E501", "key", "fails closed")


BUDGETS = {
    "max_relative_mse": (0.5, 0.003, 0.0008, 0),
    "max_attention_tv": (1, 0.02, 0.005, 0),
    "min_attention_cosine": (-1, 0.9995, 0.99999, 1),
}


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize("ladder", ["finer", "int8", "none"])
def test_budgets(name, ladder, made, tmp_path):
    """Finer steps, another codec or raw for all heads and layers of a page at once, or nothing."""
    finer = [{"codec": {"name": "transform", "step": 400}}]
    rungs = {"finer": finer, "int8": [{"codec": "int8"}], "none": []}[ladder]
    roots, sizes = [], []
    for bound in BUDGETS[name]:
        report = packed(
            made, tmp_path, codec={"name": "transform", "step": 8000},
            budget={name: bound, "ladder": rungs},
        )  # fmt: skip
        done("verify", tmp_path / "box.kvq", "--against", made / "cache")
        shown = done("inspect", tmp_path / "box.kvq", "--pages", "--json").result["pages"]
        assert all(each["heads"] == [0, 1] for each in shown if each["codec"] != "int8")
        assert restored(tmp_path) == read(tmp_path / "box.kvq").source()
        roots.append(report["content_root"])
        sizes.append(report["file_bytes"])
    assert report["raw_pages"].keys() == {"budget"}
    assert sizes == sorted(sizes)
    assert len(set(roots)) >= 3, "some pages, not all or none"


def test_a_page_that_grows(made, tmp_path):
    """Where a step is so fine that pages would be larger they stay raw, whatever the fallback."""
    of_layers(LAYERS, HEADS, CHANNELS, each=2).write(made / "fine.kvqcal")
    codec = {"name": "transform", "step": 16}
    report = packed(made, tmp_path, codec=codec, fallback="fail_closed", layers="fine")
    assert set(report["raw_pages"]) == {"larger"}
    restored(tmp_path)
    assert relative_mse(made / "cache", tmp_path / "back") < 1e-5


def test_positions_end(made, tmp_path):
    """Tokens beyond the calibration's positions stay raw; those before them do not."""
    pairs = of_layers(LAYERS, HEADS, CHANNELS, each=2, pairs=4, coarse=4)
    pairs.write(made / "short.kvqcal")
    report = packed(made, tmp_path, layers="short", codec={"name": "transform", "step": 65536})
    assert report["raw_pages"] == {"unsupported": 2 * 2}
    shown = done("inspect", tmp_path / "box.kvq", "--pages", "--json").result["pages"]
    raw = {(each["role"], *each["tokens"]) for each in shown if each["codec"] == "raw"}
    assert raw == {("key", 32, 64), ("key", 64, 70)}


def test_one_token(made, tmp_path):
    """A page of one token, a capture of one."""
    (made / "single").write_bytes(capture(tokens=1))
    packed(made, tmp_path, source="single")
    assert restored(tmp_path) == read(tmp_path / "box.kvq").source()
    packed(made, tmp_path, page_tokens=1, codec={"name": "transform", "step": 9000})
    restored(tmp_path)
    assert relative_mse(made / "cache", tmp_path / "back") < 0.5


@pytest.mark.parametrize("refer", [[], ["--refer"]])
def test_recovered(refer, made, tmp_path):
    """What a torn container has left is restored as it was; lost rows are zeros."""
    packed(made, tmp_path, *refer)
    given = ["--calibration", made / "2.kvqcal"] if refer else []
    whole = {name: bits for name, _, bits in _tensors(tmp_path, given)}
    data = (tmp_path / "box.kvq").read_bytes()
    pages = done("inspect", tmp_path / "box.kvq", "--pages", "--json").result["pages"]
    (tmp_path / "torn.kvq").write_bytes(data[: pages[-3]["offset"] + 8])
    ran = kvq("recover", tmp_path / "torn.kvq", "-o", tmp_path / "box.kvq", "-f", "--json")
    assert ran.code == 1, ran.err
    assert ran.result["lost"]["rows"]
    done("verify", tmp_path / "box.kvq", "--partial", *given)
    for name, _, bits in _tensors(tmp_path, [*given, "--partial", "zero"]):
        kept = bits == whole[name]
        assert np.array_equal(bits[~kept], np.zeros_like(bits[~kept]))
        assert kept.all() == (name == "key")
        assert kept.any()


def _tensors(tmp_path, words):
    restored(tmp_path, *words)
    return list(tensors(tmp_path / "back"))


def test_segments(made, tmp_path):
    """Positions go on where the segment before ended: both readers agree, keys come back."""
    chosen = profile(tmp_path / "p.json")
    terms = ["-p", chosen, "--calibration", made / "2.kvqcal"]
    boxes, rows = [], capture()
    size = int.from_bytes(rows[:8], "little") + 8
    whole = np.frombuffer(rows[size:], "<u2").reshape(2, *SHAPE)
    for number, (start, stop) in enumerate(((0, 33), (33, 34), (34, TOKENS))):
        part = {
            role: ("F16", each.shape, each.tobytes())
            for role, each in zip(
                ("key", "value"), (np.ascontiguousarray(one[:, :, :, start:stop]) for one in whole),
                strict=True,
            )
        }  # fmt: skip
        (tmp_path / f"{number}").write_bytes(safetensors_bytes(part, META))
        more = ["--continues", boxes[-1]] if boxes else []
        boxes.append(tmp_path / f"{number}.kvq")
        done("compress", tmp_path / f"{number}", "-o", boxes[-1], *terms, *more)
        done("decompress", boxes[-1], "-o", tmp_path / "alone", "-f")
        assert (tmp_path / "alone").read_bytes() == read(boxes[-1]).source()
    done("decompress", *boxes, "-o", tmp_path / "back")
    assert relative_mse(made / "cache", tmp_path / "back") < 0.03


@pytest.mark.parametrize("name", BUDGETS)
def test_a_segment_keeps_its_budget(name, made, tmp_path):
    """Pages of a segment are tried where they lie in the whole cache."""
    rows = capture()
    size = int.from_bytes(rows[:8], "little") + 8
    whole = np.frombuffer(rows[size:], "<u2").reshape(2, *SHAPE)
    chosen = profile(
        tmp_path / "p.json",
        codec={"name": "transform", "step": 8000},
        budget={name: BUDGETS[name][2], "ladder": [{"codec": {"name": "transform", "step": 400}}]},
    )
    terms = ["-p", chosen, "--calibration", made / "2.kvqcal"]
    for number, part in enumerate((slice(0, 30), slice(30, TOKENS))):
        both = [np.ascontiguousarray(each[:, :, :, part]) for each in whole]
        found = {
            role: ("F16", each.shape, each.tobytes())
            for role, each in zip(("key", "value"), both, strict=True)
        }
        (tmp_path / f"{number}").write_bytes(safetensors_bytes(found, META))
        box = tmp_path / f"{number}.kvq"
        more = ["--continues", tmp_path / "0.kvq"] if number else []
        done("compress", tmp_path / f"{number}", "-o", box, *terms, *more)
        done("verify", box, "--against", tmp_path / f"{number}")
        pages = done("inspect", box, "--pages", "--json").result["pages"]
        assert all(each["heads"] == [0, 1] for each in pages)


def test_a_cache_that_grows(made, tmp_path):
    """CacheWriter takes a calibration."""
    rows = {name: bits[0] for name, _, bits in tensors(made / "cache")}
    for refer in (False, True):
        cache = kvq_cli.CacheWriter(
            layers=LAYERS, kv_heads=HEADS, head_dim=CHANNELS, capacity=TOKENS, metadata=META,
            profiles=[profile(tmp_path / "p.json")], calibration=made / "2.kvqcal", refer=refer,
        )  # fmt: skip
        boxes = [tmp_path / f"{refer}-{number}.kvq" for number in range(2)]
        for box, part in zip(boxes, (slice(0, 40), slice(40, TOKENS)), strict=True):
            cache.push(*(rows[role][:, :, part] for role in ("key", "value")))
            cache.write(box)
        given = ["--calibration", made / "2.kvqcal"] if refer else []
        done("decompress", *boxes, "-o", tmp_path / "back", "-f", *given)
        assert relative_mse(made / "cache", tmp_path / "back") < 0.03


PLANS = {
    "bits": ({"name": "transform"}, {"target": {"bits": 2.0}}, None),
    "step": ({"name": "transform", "step": 9}, {}, "target"),
    "error": ({"name": "transform"}, {"target": {"relative_mse": 0.1}}, "target"),
    "too few": ({"name": "transform"}, {"target": {"bits": 0.01}}, "out of reach"),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan(name, tmp_path):
    """Sizes follow from a target of bits alone."""
    codec, members, word = PLANS[name]
    chosen = profile(tmp_path / "p.json", codec=codec, **members, protected={"first_tokens": 4})
    call = ["stats", "--plan", "--model", "llama-3.1-8b", "--tokens", 5000, "-p", chosen]
    if word:
        refused(kvq(*call), 2, "E101", word)
        return
    report = done(*call, "--json").result
    assert 1.99 < report["bits_per_element"] < 2.02
    assert any("estimated" in note for note in report["notes"])
    assert {codec for row in report["layers"] for codec in row["codecs"]} == {"raw", "transform"}


def test_profile_commands(made, tmp_path):
    """Shown in its normal form, checked, and refused with a fixed rate."""
    chosen = profile(tmp_path / "p.json", codec={"name": "transform"}, target={"bits": 2})
    shown = json.loads(done("profile", "show", chosen).out)
    assert shown["target"] == {"bits": 2.0}
    assert shown["rules"][0]["codec"] == {
        "name": "transform", "basis": None, "size": None, "step": None, "turned": True,
    }  # fmt: skip
    done("profile", "check", chosen)
    profile(tmp_path / "p.json", fixed_rate=True)
    refused(kvq("profile", "check", chosen), 3, "E401", "fixed")
