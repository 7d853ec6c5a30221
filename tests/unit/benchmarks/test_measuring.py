"""What the benchmarks measure on, and what they make of it."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import benchmarks.methods
from benchmarks import blocks, instances, make_peers, result, rounds, tables
from benchmarks.methods import MODULES, Later, apart, nbytes, packed
from benchmarks.methods.kvq_codecs import methods
from benchmarks.methods.zstd_frames import methods as zstd_methods
from kvq_cli.codecs.registry import names

METHODS = Path(benchmarks.methods.__file__).parent
SAMPLE = Path(__file__).parents[3] / "sample_data" / "smollm2-sample-4x3x96x64-f16.safetensors"


@pytest.fixture(scope="module")
def capture():
    return blocks.read(SAMPLE)


def test_a_capture_is_cut_into_blocks(capture):
    """A block is one head of one layer, over a multiple of 64 tokens; the rest is dropped."""
    assert capture.roles["key"].shape == (12, 64, 64)
    assert capture.heads == 3
    assert capture.channels == 64


def test_repeats_hold_the_same_rows_in_another_order(capture):
    """Enough bytes; the first repeat is the blocks; each later one permutes channels."""
    keys = capture.roles["key"]
    twice = blocks.repeated(keys, 2 * keys.nbytes)
    assert twice.nbytes == 2 * keys.nbytes
    assert np.array_equal(twice[:12], keys)
    assert not np.array_equal(twice[12:], keys)
    assert np.array_equal(np.sort(twice[12:], axis=2), np.sort(keys, axis=2))


def test_jobs_are_of_one_shape():
    """About as many bytes as asked, one block at least, no shorter tail."""
    found = rounds.jobs(np.zeros((7, 4, 8), np.float16), 128)
    assert [job.shape for job in found] == [(2, 4, 8)] * 3
    assert len(rounds.jobs(np.zeros((3, 4, 8), np.float16), 1)) == 3


def test_every_codec_is_measured():
    """A codec that is in the registry has an instance with a name."""
    apart = {"fib_quant", "transform"}  # with tables of their own: compat_speed, transform_speed
    measured = set(names()) - apart
    assert {codec.name for codec in instances.named().values()} == measured
    assert {codec.name for codec in instances.every().values()} == measured


@pytest.mark.parametrize("method", [*methods(3), *zstd_methods(3)], ids=lambda each: each.name)
def test_methods_give_back_what_they_took(capture, method):
    """Sizes are positive; what comes back is near, and the same bits where nothing is lost."""
    values = capture.roles["value"]
    encoded = method.keep(method.encode(values))
    assert 0 < method.stored(encoded) < values.nbytes
    restored = np.asarray(method.decode(encoded)).reshape(values.shape)
    if "zstd" in method.name:
        assert np.array_equal(restored.view(np.uint16), values.view(np.uint16))
    wide, back = values.astype(np.float64), restored.astype(np.float64)
    assert ((back - wide) ** 2).sum() < 0.5 * (wide**2).sum()


def test_bytes_are_counted_through():
    """Arrays, bytes, and all that is in containers of them."""
    assert nbytes({"a": [b"12", (np.zeros(3, np.float16),)], "b": bytearray(1)}) == 9


def test_codes_are_counted_side_by_side():
    """What a package keeps in a byte each takes its bits alone, to the next whole byte."""
    assert packed(128, 3) == 48
    assert packed(3, 3) == 2


def test_numbers_that_numpy_lacks_become_arrays_when_asked():
    """A tensor of BF16 is turned to float32 where an array is wanted, not before."""

    class Tensor:
        def float(self):
            return self

        def numpy(self):
            return np.ones(2, np.float32)

    found = np.asarray([Later(Tensor()), Later(Tensor())])
    assert found.shape == (2, 2)
    assert found.dtype == np.float32


def test_a_package_apart_goes_before_others_of_its_name(tmp_path, monkeypatch):
    """It is imported from its own folder of the environment."""
    (tmp_path / "apart" / "some-dist").mkdir(parents=True)
    (tmp_path / "apart" / "some-dist" / "some_module_apart.py").write_text("HERE = 1")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "some_module_apart", raising=False)
    assert apart("some-dist", "some_module_apart").HERE == 1


def test_every_module_of_methods_is_run():
    """A file of methods is in the list, and the list names no other."""
    files = {path.stem for path in METHODS.glob("*.py")} - {"__init__"}
    assert files == set(MODULES)


def test_packages_apart_are_installed_apart():
    """What methods import from a folder of its own is what make_peers puts there."""
    sources = [path.read_text("utf-8") for path in METHODS.glob("*_*.py")]
    asked = {name for text in sources for name in re.findall(r'\bapart\("([^"]+)"', text)}
    assert asked == {each.partition("==")[0] for each in make_peers.APART}


def test_torch_is_pinned_where_it_is_needed():
    """Every package that brings torch along has the pinned one beside it, first."""
    sources = {path.stem: path.read_text("utf-8") for path in METHODS.glob("*.py")}
    told = [text for text in sources.values() if "import torch" in text]
    asked = {name for text in told for name in re.findall(r'PACKAGES: Final = \("([^"]+)"', text)}
    alone = {re.split("[=>]", each[-1])[0] for each in make_peers.PEERS if len(each) == 1}
    assert not (asked - {"torch"}) & alone


def test_a_part_replaces_itself_alone(tmp_path):
    """Parts that were not measured stay; the file is JSON, one row a line."""
    path = tmp_path / "results.json"
    result.merge(path, {"codecs": {"made": {}, "rows": [{"a": 1}, {"a": 2}]}})
    result.merge(path, {"threads": {"made": {}, "captures": []}})
    result.merge(path, {"codecs": {"made": {}, "rows": [{"a": 3}]}})
    told = json.loads(path.read_text())
    assert told == {
        "schema": result.SCHEMA,
        "codecs": {"made": {}, "rows": [{"a": 3}]},
        "threads": {"made": {}, "captures": []},
    }
    assert '\n   {"a": 3}\n' in path.read_text()


def test_a_table_has_a_column_for_every_member():
    """Members that only some rows have are there; a member that a row lacks is a dash."""
    assert tables.table([{"a": 1}, {"a": 22, "b": None}]) == "a   b\n1   -\n22  -"
    assert tables.table([]) == "nothing to show"


def test_the_ratio_is_the_median_of_ratios():
    """Rounds are paired, so a slow round counts for both."""
    assert rounds.ratio([1.0, 20.0, 3.0], [2.0, 40.0, 3.0]) == 0.5
