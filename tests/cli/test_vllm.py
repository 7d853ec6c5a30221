"""Dumps of vLLM and LMCache on the command line: restored, converted, told apart, refused."""

from __future__ import annotations

import json
import shutil

import pytest

from support.captures import (
    lmcache_file,
    per_layer_capture,
    safetensors_bytes,
    vllm_files,
    write_folder,
)
from support.shell import done, kvq, left_alone, listing, refused

LARGE = {"tokens": 256, "channels": 64, "dtype": "F16"}  # whole blocks of the CPU backend
TOLD = {
    "vllm": ["--layout", "vllm"],
    "vllm_split": ["--layout", "vllm_split", "--meta", "kv_heads=2"],
    "vllm_cpu": ["--layout", "vllm_cpu"],
}
LOSSY = ["int8", "kivi-4bit", "turboquant-3bit"]
every_layout = pytest.mark.parametrize("layout", TOLD)


def dump(tmp_path, layout, **recipe):
    """A folder of files of 2 layers, 2 heads, 256 tokens and 64 channels, each block 128."""
    files = vllm_files(layout, block=128, **{**LARGE, **recipe})
    return write_folder(tmp_path / "dump", files)


def hf_of(tmp_path, **recipe):
    """The same rows in the layout hf."""
    path = tmp_path / "hf.safetensors"
    lengths = {**LARGE, **recipe}
    tokens = (lengths.pop("tokens"),) * 2
    path.write_bytes(per_layer_capture(tokens=tokens, batch=None, heads=2, **lengths))
    return path


def data_of(folder):
    """What lies behind the headers."""
    found = {}
    for name, data in listing(folder).items():
        found[name] = data[8 + int.from_bytes(data[:8], "little") :]
    return found


@pytest.mark.parametrize("told", [True, False])
@every_layout
def test_restored_as_it_was(layout, told, tmp_path):
    """Named or in doubt, the folder comes back with the same names and bytes."""
    source = dump(tmp_path, layout)
    ran = done("compress", source, *(TOLD[layout] if told else []))
    assert ("note: kept as it is" in ran.err) == (not told)
    done("decompress", f"{source}.kvq", "-o", tmp_path / "back")
    assert listing(tmp_path / "back") == listing(source)
    done("verify", f"{source}.kvq", "--against", source)


@pytest.mark.parametrize("profile", LOSSY)
@every_layout
def test_lossy_is_as_in_any_layout(layout, profile, tmp_path):
    """What a lossy profile makes of the rows does not depend on where they lie."""
    source, hf = dump(tmp_path, layout), hf_of(tmp_path)
    done("compress", source, "-p", profile, *TOLD[layout])
    done("compress", hf, "-p", profile)
    for path in (source, hf):
        done("decompress", f"{path}.kvq", "--layout", "hf", "-o", f"{path}.back")
    ours, theirs = (f"{path}.back" for path in (source, hf))
    assert data_of_file(ours) == data_of_file(theirs)
    done("verify", f"{source}.kvq", "--against", source)
    stats = done("stats", f"{source}.kvq", "--against", source, "--json").result
    assert not stats["broken"]
    assert stats["errors"]


def data_of_file(path):
    with open(path, "rb") as file:
        data = file.read()
    return data[8 + int.from_bytes(data[:8], "little") :]


@pytest.mark.parametrize("target", [*TOLD, "lmcache", "canonical", "hf"])
@every_layout
def test_there_and_back(layout, target, tmp_path):
    """In another layout and back: the same bits, and the other one is read without a word."""
    source = dump(tmp_path, layout)
    done("compress", source, *TOLD[layout])
    done("decompress", f"{source}.kvq", "--layout", target, "-o", tmp_path / "other")
    report = done("inspect", tmp_path / "other", "--json").result
    assert (report["layout"], report["doubt"]) == (target, None)
    done("compress", tmp_path / "other")
    done("decompress", tmp_path / "other.kvq", "--layout", layout, "-o", tmp_path / "back")
    assert data_of(tmp_path / "back") == data_of(source)
    done("verify", tmp_path / "other.kvq", "--against", tmp_path / "other")


def test_without_metadata_the_files_are_vllms_own(tmp_path):
    """From a file without metadata, what is written differs in the metadata alone."""
    hf = hf_of(tmp_path)
    done("compress", hf)
    done("decompress", f"{hf}.kvq", "--layout", "vllm", "-o", tmp_path / "out")
    assert data_of(tmp_path / "out") == data_of(dump(tmp_path, "vllm"))
    header = json.loads(
        (tmp_path / "out" / "model.layers.0.self_attn.attn.safetensors")
        .read_bytes()[8:200]
        .split(b"}}")[0]
        + b"}}"
    )
    assert header["__metadata__"] == {"layout": "vllm"}


def test_mla_there_and_back(tmp_path):
    source = write_folder(tmp_path / "dump", vllm_files("vllm_mla", dtype="F16"))
    assert "MLA" in done("compress", source).err
    done("decompress", f"{source}.kvq", "--layout", "canonical", "-o", tmp_path / "other")
    done("compress", tmp_path / "other")
    done("decompress", tmp_path / "other.kvq", "--layout", "vllm_mla", "-o", tmp_path / "back")
    assert data_of(tmp_path / "back") == data_of(source)
    ran = kvq("decompress", f"{source}.kvq", "--layout", "vllm", "-o", tmp_path / "x")
    refused(ran, 2, "E101", "needs keys and values")


def test_lmcache_there_and_back(tmp_path):
    """The header that is written is the one that LMCache reads: 4,096 bytes, with fmt."""
    path = tmp_path / "a.kvcache.safetensors"
    path.write_bytes(lmcache_file())
    done("compress", path, "--meta", "head_dim=4", "-p", "int8", "-o", tmp_path / "lossy.kvq")
    done("verify", tmp_path / "lossy.kvq", "--against", path)
    done("compress", path, "--meta", "kv_heads=2")
    done("decompress", f"{path}.kvq", "-o", tmp_path / "same")
    assert (tmp_path / "same").read_bytes() == path.read_bytes()
    done("decompress", f"{path}.kvq", "--layout", "canonical", "-o", tmp_path / "other")
    done("compress", tmp_path / "other")
    done("decompress", tmp_path / "other.kvq", "--layout", "lmcache", "-o", tmp_path / "back")
    back = (tmp_path / "back").read_bytes()
    assert back[4096:] == path.read_bytes()[4096:]
    entry = json.loads(back[8:4096])["kvcache"]
    assert (entry["fmt"], entry["__metadata__"]) == (1, {"lmcache_version": "1"})
    done("decompress", f"{path}.kvq", "--layers", "1", "-o", tmp_path / "part")
    report = done("inspect", tmp_path / "part", "--json").result
    assert (report["layout"], report["metadata"]["layer_indices"]) == ("lmcache", "[1]")
    side = write_folder(
        tmp_path / "both",
        {path.name: path.read_bytes(), f"{path.name}.metadata": path.read_bytes()[:4096]},
    )
    done("compress", side)
    done("decompress", f"{side}.kvq", "-o", tmp_path / "again")
    assert listing(tmp_path / "again") == listing(side)


@every_layout
def test_slices(layout, tmp_path):
    """Slices keep the names of files where they have a form; all can be converted."""
    source = dump(tmp_path, layout)
    done("compress", source, *TOLD[layout])
    cut = ["--layers", "1", "--heads", "0", "--tokens", "3:100"]
    done("decompress", f"{source}.kvq", *cut, "--layout", "canonical", "-o", tmp_path / "a")
    if layout == "vllm_cpu":
        with left_alone(tmp_path):
            ran = kvq("decompress", f"{source}.kvq", *cut, "-o", tmp_path / "b")
            refused(ran, 2, "E101", "choose one with --layout")
        return
    done("decompress", f"{source}.kvq", *cut, "-o", tmp_path / "b")
    assert list(listing(tmp_path / "b")) == ["model.layers.1.self_attn.attn.safetensors"]
    told = ["--layout", layout, "--meta", "head_dim=64"]
    done("compress", tmp_path / "b", *told)
    done("decompress", tmp_path / "b.kvq", "--layout", "canonical", "-o", tmp_path / "c")
    assert data_of_file(tmp_path / "a") == data_of_file(tmp_path / "c")


@every_layout
def test_one_role_has_no_form_of_its_own(layout, tmp_path):
    """Half of a tensor would be taken for something else."""
    source = dump(tmp_path, layout)
    done("compress", source, *TOLD[layout])
    with left_alone(tmp_path):
        ran = kvq("decompress", f"{source}.kvq", "--role", "key", "-o", tmp_path / "x")
        refused(ran, 2, "E101", "choose one with --layout")
    done("decompress", f"{source}.kvq", "--role", "key", "--layout", "hf", "-o", tmp_path / "x")


@pytest.mark.parametrize(
    ("layout", "arguments", "error", "words"),
    [
        ("vllm", ["-p", "int8"], (4, "E204"), "--layout vllm, or vllm_cpu"),
        ("vllm_split", ["-p", "int8"], (4, "E204"), "vllm_split with --meta kv_heads=N"),
        ("vllm_split", ["-p", "int8", "--layout", "vllm_split"], (4, "E204"), "heads are not told"),
        ("vllm", ["--layout", "vllm", "--meta", "kv_heads=4"], (2, "E101"), "the capture has 2"),
        ("vllm", ["--layout", "vllm", "--meta", "head_dim=32"], (2, "E101"), "the capture has 64"),
        ("vllm", ["--layout", "vllm", "--meta", "block_size=16"], (2, "E101"), "has none"),
        ("vllm", ["--meta", "kv_heads=2"], (2, "E101"), "does not help"),
        ("vllm", ["--meta", "kv_heads=02"], (2, "E101"), "a number from 1"),
        ("vllm", ["--meta", "heads=2"], (2, "E101"), "known keys"),
        ("vllm", ["--layout", "vllm_mla"], (4, "E204"), "no layout of vllm_mla fits"),
        ("vllm", ["--layout", "vllm_dump2"], (2, "E101"), "no layout"),
        ("vllm_split", ["--meta", "kv_heads=3"], (2, "E101"), "not those of kv_heads"),
        ("vllm_split", ["--meta", "kv_heads=2", "--meta", "head_dim=63"], (2, "E101"), "as told"),
        (
            "vllm_cpu",
            ["--layout", "vllm_cpu", "--meta", "block_size=96"],
            (2, "E101"),
            "do not fit",
        ),
        ("vllm_cpu", ["--layout", "vllm_cpu", "--meta", "kv_heads=3"], (2, "E101"), "has 2"),
    ],
)
def test_what_is_not_known_is_refused(layout, arguments, error, words, tmp_path):
    """In one line that says what to do, and nothing is written."""
    source = dump(tmp_path, layout)
    with left_alone(tmp_path):
        refused(kvq("compress", source, *arguments), *error, words)


def test_every_command_is_told(tmp_path):
    """--layout and --meta reach stats, suggest, calibrate, bind and inspect."""
    source = dump(tmp_path, "vllm_split")
    told = ["--layout", "vllm_split", "--meta", "kv_heads=2"]
    facts = ["--meta", "attention_kind=gqa", "--meta", "query_heads=4", "--meta", "rope_state=post"]
    (tmp_path / "bounds.json").write_text('{"max_relative_mse": 0.01}')
    report = done("inspect", source, *told, *facts, "--json").result
    assert (report["layout"], report["doubt"]) == ("vllm_split", None)
    assert report["parts"][0]["key"]["query_heads"] == 4
    assert done("stats", source, *told, "-p", "int8", "--json").result["errors"]
    suggest = ["--suggest", "--budget", tmp_path / "bounds.json"]
    assert json.loads(done("stats", source, *told, *suggest).out)["schema"] == "kvq_profile_v1"
    done("profile", "calibrate", source, *told, "--budget", tmp_path / "bounds.json")
    terms = ["--role", "key", "--block", "2", "--size", "4"]
    bound = json.loads(done("profile", "bind", source, *terms, *told, *facts).out)
    assert bound["role_policy"] == "key"
    for command in (["stats", *suggest], ["profile", "calibrate"], ["stats", "--sample", "1"]):
        refused(kvq(*command, source), 4, "E204", "nothing to measure")
    done("compress", source, *told)
    for command in ("stats", "inspect"):
        refused(kvq(command, f"{source}.kvq", *told), 2, "E101", "for captures")
    refused(kvq("stats", "--plan", "--model", "llama-3.1-8b", "--tokens", "9", *told), 2, "E101")


def test_inspect_says_it_in_plain_words(tmp_path):
    source = dump(tmp_path, "vllm")
    out = done("inspect", source).out
    assert "2 files" in out
    assert "layout vllm_dump, in doubt" in out
    assert "say --layout vllm" in out
    out = done("inspect", source, "--layout", "vllm").out
    assert "layout vllm\n" in out
    assert "2 kv heads, 256 tokens, head_dim 64" in out


def test_against_another_capture(tmp_path):
    """A dump that it does not come from is found, and so is one of another kind."""
    source = dump(tmp_path, "vllm_split")
    done("compress", source, *TOLD["vllm_split"])
    other = write_folder(
        tmp_path / "other", vllm_files("vllm_split", block=128, layers=(1, 0), tokens=128)
    )
    for against in (other, hf_of(tmp_path)):
        ran = kvq("verify", f"{source}.kvq", "--against", against)
        assert ran.code == 1
        assert {line[11:19] for line in ran.err.splitlines()} == {"KVQ-E805"}


def test_several_captures_are_refused(tmp_path):
    for name in ("970a", "b17c"):
        write_folder(tmp_path / "all" / name, vllm_files())
    with left_alone(tmp_path):
        ran = kvq("compress", tmp_path / "all")
        refused(ran, 4, "E204", "2 folders", '"970a" and "b17c"', "give one of them")
    shutil.rmtree(tmp_path / "all" / "b17c")
    done("compress", tmp_path / "all")


def test_a_layer_beyond_the_limit(tmp_path):
    """Layers are numbered below 65,536."""
    (file,) = vllm_files(layers=(0,)).values()
    source = write_folder(tmp_path / "dump", {"layers.99999.x.safetensors": file})
    with left_alone(tmp_path):
        refused(kvq("compress", source, "--layout", "vllm"), 7, "E207")
    done("compress", source)


def test_another_tensor_in_the_files(tmp_path):
    """Tensors beside kv_cache are carried, also into another layout."""
    files = {}
    for name, data in vllm_files("vllm", dtype="F16").items():
        tensor = ("F16", (8, 2, 8), data_bytes(data))
        files[name] = safetensors_bytes({"kv_cache": tensor, "w": ("U8", (3,), b"abc")})
    source = write_folder(tmp_path / "dump", {**files, "config.json": b"{}"})
    done("compress", source, "--layout", "vllm")
    done("decompress", f"{source}.kvq", "-o", tmp_path / "back")
    assert listing(tmp_path / "back") == listing(source)


def data_bytes(data):
    return data[8 + int.from_bytes(data[:8], "little") :]
