"""Every report that a command prints is what formats/schemas/report.schema.json says."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "formats" / "schemas" / "report.schema.json").read_text())
PAGE = (ROOT / "formats" / "report.md").read_text(encoding="utf-8")
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
CAPTURE = "ragged-3-layers-bf16.safetensors"

# Command line, exit code. %c is a capture, %k a container of it, %d a damaged one, %r what is
# left of that, %q a safetensors file without keys, %p a profile, %t a calibration.
CALLS = [
    ("compress %c -o new.kvq", 0),
    ("compress %c %q missing -o folder/", 6),
    ("compress %c -o %k", 5),
    ("decompress %k -o new.safetensors", 0),
    ("decompress %k %d missing.kvq -o folder/", 6),
    ("decompress %d -o new.safetensors", 3),
    ("verify %k", 0),
    ("verify %k --quick", 0),
    ("verify %k %d missing.kvq --profile lossless --min-ratio 9", 6),
    ("verify %k --against %c", 0),
    ("stats %k --against %c", 0),
    ("stats %k %d", 3),
    ("stats %c --profile %p", 0),
    ("stats %c --profile nosuchprofile", 2),
    ("stats %c -p int8 -p int4 --queries self", 0),
    ("stats %c --suggest --budget %b --sample 2", 0),
    ("stats %c --suggest --budget missing.json", 6),
    ("compress %c -p %b -o new.kvq", 0),
    ("verify %k --budget %b --against %c --queries self", 0),
    ("stats %c -p int8 --queries %q", 1),
    ("stats --plan --model llama-3.1-8b --tokens 1000 -p int8 -p %p", 0),
    ("stats --plan --layers 1 --kv-heads 1 --tokens 1 --head-dim 999 -p fibquant-2bit -p raw", 2),
    ("inspect %k %c %p %q", 0),
    ("inspect %k %c %q --pages --tensors", 0),
    ("inspect %k %d missing.kvq", 6),
    ("recover %k -o new.kvq", 0),
    ("recover %d -o new.kvq", 1),
    ("recover %k %d %q missing.kvq -o folder/", 6),
    ("inspect %r", 0),
    ("verify %r", 1),
    ("decompress %r --partial nan -o new.safetensors", 0),
    ("calibrate %c --meta rope_theta=10000 -o new.kvqcal", 0),
    ("calibrate %c %q -o new.kvqcal", 4),
    ("calibrate missing -o new.kvqcal", 6),
    ("inspect %t", 0),
    ("profile list", 0),
    ("profile check int8 %p", 0),
    ("profile check int8 %c missing.json", 6),
    ("profile digest int8 %p", 0),
]
PLAN = "stats --plan --layers 1 --kv-heads 1 --tokens 1 --head-dim 1 -p raw"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A capture, a container of it, and damaged company."""
    folder = tmp_path_factory.mktemp("reports")
    samples = ROOT / "sample_data"
    shutil.copy(samples / CAPTURE, folder / "c.safetensors")
    shutil.copy(samples / "profiles" / "demo-int8.json", folder / "p.json")
    shutil.copy(
        samples / "smollm2-sample-4x3x96x64-f16.query.safetensors", folder / "q.safetensors"
    )
    bounded = {"name": "b", "rules": [{"codec": "int8"}], "budget": {"max_attention_tv": 0.1}}
    (folder / "b.json").write_text(json.dumps({"schema": "kvq_profile_v1"} | bounded))
    run(folder, "compress c.safetensors -p p.json -o k.kvq")
    whole = (folder / "k.kvq").read_bytes()
    middle = len(whole) // 2
    (folder / "d.kvq").write_bytes(
        whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    )
    run(folder, "recover d.kvq -o r.kvq")
    run(folder, "calibrate c.safetensors --meta rope_theta=10000 -o t.kvqcal")
    return folder


def run(folder, line):
    names = {
        "%c": "c.safetensors",
        "%k": "k.kvq",
        "%d": "d.kvq",
        "%q": "q.safetensors",
        "%p": "p.json",
        "%b": "b.json",
        "%r": "r.kvq",
        "%t": "t.kvqcal",
    }
    words = [names.get(word, word) for word in line.split()]
    kept = {key: text for key, text in os.environ.items() if not key.startswith("KVQ_")}
    command = [sys.executable, "-m", "kvq_cli", *words]
    return subprocess.run(
        command, cwd=folder, env=kept, capture_output=True, text=True, check=False
    )


def report_of(folder, line):
    for name in ("new.kvq", "new.kvqcal", "new.safetensors"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "folder", ignore_errors=True)
    (folder / "folder").mkdir()
    done = run(folder, f"{line} --json")
    (text,) = done.stdout.splitlines()
    return done, json.loads(text)


@pytest.mark.parametrize(("line", "code"), CALLS, ids=[line for line, _ in CALLS])
def test_every_report_is_what_the_schema_says(folder, line, code):
    """Reports are valid, also where inputs fail, and the page of reports names every member."""
    done, report = report_of(folder, line)
    VALIDATOR.validate(report)
    assert done.returncode == report["summary"]["exit_code"] == code
    assert report["command"] == " ".join(line.split()[: 2 if line.startswith("profile") else 1])
    failed = [each for each in report["results"] if "error" in each or each.get("broken")]
    assert report["summary"]["inputs"] == len(report["results"])
    assert report["summary"]["failed"] == len(failed) == len(failures(done.stderr))
    members = {name for result in report["results"] for name in result}
    assert [name for name in sorted(members) if f"`{name}`" not in PAGE] == []


def failures(stderr):
    """Inputs that a line on standard error names as failed."""
    lines = [line for line in stderr.splitlines() if line.startswith("kvq: error KVQ-")]
    return {line.split(": ")[2] for line in lines}


def test_every_command_is_covered():
    """A command that learns --json gets a line in CALLS."""
    from kvq_cli.cli.run import parser

    def walk(command, words):
        children = getattr(command, "commands", {})
        if not children and any("--json" in each.opts for each in command.params):
            yield " ".join(words)
        for name, child in children.items():
            yield from walk(child, (*words, name))

    for name in walk(parser(), ()):
        assert any(line.startswith(name) for line, _ in CALLS), name


def test_results_as_lines_are_the_results(folder):
    """--ndjson prints what stands in `results`, a line each."""
    _, report = report_of(folder, "verify %k %d")
    lines = run(folder, "verify %k %d --ndjson").stdout.splitlines()
    assert [json.loads(line) for line in lines] == report["results"]


@pytest.mark.parametrize("command", ["compress", "verify", "stats", "inspect", "plan"])
def test_members_may_be_added(folder, command):
    """A reader of today must not refuse a report of tomorrow."""
    lines = {"compress": "compress %c -o new.kvq", "plan": PLAN}
    line = lines.get(command, f"{command} %k")
    _, report = report_of(folder, line)
    report["new"] = report["summary"]["new"] = report["results"][0]["new"] = {"of": "tomorrow"}
    VALIDATOR.validate(report)


@pytest.mark.parametrize(
    "damage",
    [
        lambda report: report.pop("summary"),
        lambda report: report.update(schema="kvq_report_v2"),
        lambda report: report["summary"].update(exit_code="0"),
        lambda report: report["results"][0].pop("path"),
        lambda report: report["results"][0].pop("parts"),
        lambda report: report["results"][0].update(content_root="sha256:00"),
        lambda report: report["results"][0].update(error={"error_id": "E301"}),
        lambda report: report["results"][0]["planes"][0].update(stored=-1),
    ],
)
def test_the_schema_refuses_what_is_not_a_report(folder, damage):
    """Missing members and wrong types are found, so the schema is no rubber stamp."""
    _, report = report_of(folder, "stats %k")
    broken = copy.deepcopy(report)
    damage(broken)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(broken)


@pytest.mark.parametrize(
    "damage",
    [
        lambda result: result.pop("geometry"),
        lambda result: result.pop("container_bytes"),
        lambda result: result.update(computed=False),
        lambda result: result.update(error={"error_id": "E301", "exit_code": 3, "message": ""}),
        lambda result: result["geometry"].update(tokens=0),
        lambda result: result["geometry"].update(dtype="F16"),
        lambda result: result["layers"].clear(),
        lambda result: result["layers"][0].update(codecs="raw"),
    ],
)
def test_the_schema_refuses_what_is_no_plan(folder, damage):
    """What --plan reports is told from what was measured, and is whole."""
    _, report = report_of(folder, PLAN)
    VALIDATOR.validate(report)
    damage(report["results"][0])
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(report)
