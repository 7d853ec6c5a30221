"""What measures the codec transform: points, the search for a step, results and tables."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import transform, transform_ablation, transform_speed, transform_tables
from benchmarks.calibration_texts import CHAPTERS, PROSE, SOURCES, TEXTS
from benchmarks.points import COARSEST, FINEST, Case, Point, Steps, measure, plain
from benchmarks.points import transform as at_step
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.pipeline import calibrate_transform, compress, stats
from kvq_cli.steps.transformed import Setting
from kvq_cli.words import Role

SAMPLE = Path(__file__).parents[3] / "sample_data" / "smollm2-sample-4x3x96x64-f16.safetensors"
CASE = Case(SAMPLE)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    """Of the sample itself: too few tokens to be worth anything, enough to be measured."""
    path = tmp_path_factory.mktemp("calibration") / "sample-1.kvqcal"
    calibrate_transform([SAMPLE], path, setting=Setting(), threads=1)
    return path


def test_a_point_is_of_a_file_that_refers_and_of_one_that_holds(calibration, tmp_path):
    """Bits are of whole files; what differs is the table; attention is as stats tells it."""
    steps = Steps(lambda step: measure(CASE, at_step(step), calibration))
    row = transform.transformed(CASE, calibration, steps, 4000)
    terms = {"profiles": [at_step(4000)], "calibration": calibration}
    elements = 2 * 4 * 3 * 96 * 64
    for refer, prefix in ((True, ""), (False, "embedded_")):
        box = tmp_path / f"{refer}.kvq"
        compress(SAMPLE, box, refer=refer, **terms)
        bits = 8 * box.stat().st_size / elements
        assert row[f"{prefix}bits"] == pytest.approx(bits, abs=1e-4)
        assert row[f"{prefix}ratio"] == pytest.approx(16 / bits, abs=1e-3)
    point = steps(4000)
    report = stats(box, against=SAMPLE, queries=CASE.queries)
    assert point.tv == report.attention[-1]["attention_tv"]
    assert point.cosine == report.attention[-1]["attention_cosine"]
    assert (report.attention[-1]["layer"], report.attention[-1]["head"]) == (None, None)


def test_a_codec_without_a_calibration_has_no_table():
    """Plain TurboQuant of 4 bits takes what it says, and a little for norms and pages."""
    point = measure(CASE, plain(4))
    assert 4 < point.bits < 6
    assert 0 < point.tv < 0.2


def power(step, exponent=1.0):
    """Losses that grow with a power of the step, as they do."""
    loss = 1e-5 * step**exponent
    return Point(bits=20 - math.log2(step), tv=loss, cosine=1 - loss**2)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("wanted", [100, 1000, 1234, 30000])
@pytest.mark.parametrize("known", [(), (500, 2000, 8000)])
def test_the_coarsest_step_is_found_to_a_percent(exponent, wanted, known):
    """It is good, a percent more is not, and few steps are tried."""
    steps = Steps(lambda step: power(step, exponent))
    for step in known:
        steps(step)
    found = steps.coarsest(power(wanted, exponent))
    assert wanted / 1.0101 - 1 <= found <= wanted
    assert len(steps.known) <= len(known) + 9


def test_both_measures_must_be_as_good():
    """The one that is lost first decides."""
    goal = replace(power(1000), cosine=power(600).cosine)
    found = Steps(power).coarsest(goal)
    assert 593 <= found <= 600


def test_where_no_step_is_good_there_is_none():
    """Nor is more looked for than there is."""
    assert Steps(power).coarsest(power(FINEST / 2)) is None
    assert Steps(power).coarsest(power(2 * COARSEST)) == COARSEST


@pytest.mark.parametrize("edge", [90, 300, 777, 5000, 12345, 60000])
def test_losses_that_do_not_follow_a_power_are_bracketed_too(edge):
    """A cliff between two steps is found by halves, to a percent as well."""

    def cliff(step):
        return Point(1.0, 0.1 if step <= edge else 0.9, 0.99)

    assert edge / 1.0101 - 1 <= Steps(cliff).coarsest(Point(1.0, 0.5, 0.9)) <= edge


def test_each_step_is_measured_once():
    """Searches share what they know."""
    asked = []

    def at(step):
        asked.append(step)
        return power(step)

    steps = Steps(at)
    steps.coarsest(power(1000))
    steps.coarsest(power(1010))
    assert len(asked) == len(set(asked))


def test_a_capture_has_all_rows_and_verdicts(calibration, monkeypatch):
    """A factor is how many times smaller the file is than that of the codec it is held against."""
    monkeypatch.setattr(transform, "STEPS", (2000, 8000))
    monkeypatch.setattr(transform, "BUILTIN", ("turboquant-4bit",))
    part = transform.measured(CASE, [calibration])
    rows = {row["codec"]: row for row in part["rows"]}
    assert [row["step"] for row in part["rows"] if "step" in row] == [2000, 8000]
    assert {each["against"] for each in part["verdicts"]} <= set(transform.AGAINST)
    assert part["verdicts"]
    for each in part["verdicts"]:
        against = rows[each["against"]]
        assert each["factor"] == pytest.approx(against["bits"] / each["bits"], abs=2e-3)
        assert each["tv"] <= against["tv"]
        assert each["cosine"] >= against["cosine"]
    for text, count in ((transform_tables.rows(part), len(part["rows"])),
                        (transform_tables.verdicts(part), len(part["verdicts"]))):  # fmt: skip
        lines = text.splitlines()
        assert len(lines) == count + 2
        assert len({line.count("|") for line in lines}) == 1


def test_all_that_is_compared_with_is_measured():
    """Verdicts are against codecs that have a row."""
    assert set(transform.AGAINST) < set(transform.references())


def test_a_capture_replaces_itself_alone(tmp_path):
    """And so does each other part."""
    path = tmp_path / "transform.json"
    transform.merge(path, capture={"capture": "a", "rows": [{"x": 1}]})
    transform.merge(path, capture={"capture": "b", "rows": [{"x": 2}]})
    transform.merge(path, ablation={"base": "c", "rows": [{"x": 3}]})
    transform.merge(path, capture={"capture": "a", "rows": [{"x": 4}]})
    assert json.loads(path.read_text()) == {
        "schema": transform.SCHEMA,
        "captures": [{"capture": "a", "rows": [{"x": 4}]}, {"capture": "b", "rows": [{"x": 2}]}],
        "ablation": {"base": "c", "rows": [{"x": 3}]},
    }


def test_a_variant_differs_in_one_thing():
    """From the calibration of all texts, of some layers a group."""
    base = transform_ablation.BASE
    for variant in transform_ablation.VARIANTS[1:]:
        named = replace(variant, part=base.part, name=base.name, captures=base.captures)
        differing = [
            named.setting != base.setting,
            named.texts != base.texts,
            named.told != base.told,
            named.first != base.first,
        ]
        assert sum(differing) == 1, variant.name
    wanted = {text for each in transform_ablation.VARIANTS for text in each.texts or ()}
    assert wanted < set(TEXTS)


def test_a_variant_is_calibrated_on_its_texts_alone(tmp_path):
    """With its setting; files of queries are no captures."""
    for name in ("one", "two"):
        for path in (SAMPLE, CASE.queries):
            (tmp_path / path.name.replace(SAMPLE.stem, name)).write_bytes(path.read_bytes())
    (tmp_path / "out").mkdir()
    both = transform_ablation.Variant("part", "name", Setting(layers=2))
    for variant, tokens in ((both, 2 * 92), (replace(both, texts=("two",)), 92)):
        path = transform_ablation.calibrated(variant, tmp_path, tmp_path / "out")
        loaded = transform_ablation.load_kvqcal(path)
        assert int(loaded.metadata["tokens"]) == tokens
        assert {group.layers for group in loaded.basis.groups} == {2}
        path.unlink()


def test_keys_stay_turned_where_captures_say_that_none_are(tmp_path):
    """Nothing but the metadata of the copies is changed."""
    variant = transform_ablation.Variant("part", "name", Setting(), told={"rope_state": "none"})
    captures, out = tmp_path / "captures", tmp_path / "out"
    for folder in (captures, out):
        folder.mkdir()
    for path in (SAMPLE, CASE.queries):
        (captures / path.name).write_bytes(path.read_bytes())
    loaded = transform_ablation.load_kvqcal(transform_ablation.calibrated(variant, captures, out))
    assert loaded.metadata["rope_state"] == "none"
    assert {group.turn for group in loaded.basis.groups} == {None}
    for path in (SAMPLE, CASE.queries):
        told, data = header_and_data(out / path.name)
        other, same = header_and_data(path)
        assert data == same
        assert told.pop("__metadata__") != other.pop("__metadata__")
        assert told == other


def header_and_data(path):
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def test_no_text_that_is_measured_is_calibrated_on():
    """Sources are named one by one, and textwrap is not among them; prose is by others."""
    assert "textwrap" not in SOURCES
    assert set(PROSE) < set(TEXTS)
    assert all(name.startswith(("moby", "sotu")) for name in PROSE)
    chapters = [number for numbers in CHAPTERS.values() for number in numbers]
    assert len(chapters) == len(set(chapters))
    assert all(1 <= number <= 135 for number in chapters)
    measured = (SAMPLE.parent / "pride-and-prejudice.txt").read_text("utf-8")
    sentences = {each for each in re.split(r"[.!?]\s+", measured) if len(each) > 40}
    for name in ("topics", *(f"py_{each.replace('/', '_')}" for each in SOURCES)):
        assert not any(each in TEXTS[name]() for each in sentences), name


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.word)
def test_made_rows_come_back_near(role, monkeypatch):
    """The calibration that speed is measured with is one of these rows, turned or not."""
    monkeypatch.setattr(transform_speed, "PAGES", 1)
    made = transform_speed.recipe()
    digest, size, tables, turn = transform_speed.tables_of(made)
    (page,) = transform_speed.pages(made, role, turn)
    codec = transform_speed.Transform(digest, size, round(0.06 * transform_speed.STEP))
    calls = transform_speed.TransformCalls(codec, page.spec, tables)
    calls.measure([page])
    assert 1.5 < calls.bits < 2.5
    scratch = Scratch(tables)
    into = transform_speed.Page(page.spec, np.empty_like(page.bits))
    codec.decode(codec.encode(page, scratch), page.spec, into, scratch)
    before, after = (each.bits.view(np.float16).astype(float) for each in (page, into))
    assert 0 < ((after - before) ** 2).mean() < 0.01 * before.var()


def test_a_calibration_that_is_there_is_not_made_again(tmp_path):
    """Where nothing but the layers of a group differs from it."""
    path = tmp_path / "smollm2-5.kvqcal"
    path.touch()
    base = transform_ablation.BASE
    assert transform_ablation.ready(base, tmp_path) == path
    assert transform_ablation.ready(replace(base, first=0), tmp_path) == path
    for other in (
        replace(base, setting=Setting(layers=1)),
        replace(base, setting=Setting("self", 5)),
        replace(base, texts=("one",)),
        replace(base, told={"rope_state": "none"}),
    ):
        assert transform_ablation.ready(other, tmp_path) is None


def test_variants_of_a_part_stand_together():
    """Whatever the order in which they were measured."""
    rows = [
        {"part": part, "variant": name, "capture": "c", "tokens": 1, "dimensions": 2, "bits": 1.0,
         "tv": 0.1, "cosine": 0.9, "equal_bits": bits}
        for part, name, bits in (("a", "1", 1.0), ("b", "2", None), ("a", "3", 1.5))
    ]  # fmt: skip
    lines = transform_tables.ablation({"rows": rows}).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == ["1", "3", "2"]
    assert [line.rsplit(" | ", 1)[1] for line in lines] == ["1.000 |", "1.500 |", "none |"]
