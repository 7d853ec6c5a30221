"""formats/vectors: every malformed file through the command line, in one process.

A case names one rule, and says which error id and which exit code a command refuses it with.
"""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import pytest

from kvq_cli import jsontext
from kvq_cli.errors import MEANINGS, KvqError
from kvq_cli.profile.builtin import read_any
from support import surgery
from support.captures import raw_safetensors, safetensors_bytes
from support.patches import patched
from support.recipes import capture_bytes, lay_out
from support.shell import kvq, left_alone, refused

VECTORS = Path(__file__).parents[2] / "formats" / "vectors"


def loaded(name: str) -> Any:
    return jsontext.loads((VECTORS / name).read_bytes(), limit=1 << 24)


BASES = {
    path.stem: base64.b64decode(json.loads(path.read_text())["container"])
    for path in sorted((VECTORS / "container" / "valid").iterdir())
}
CONTAINERS = {
    f"{path.stem}-{case['id']}": case
    for path in sorted((VECTORS / "container" / "invalid").iterdir())
    for case in json.loads(path.read_text())["cases"]
}
HEADERS = {case["name"]: case for case in loaded("capture/headers-invalid.json")["cases"]}
CAPTURES = {case["name"]: case for case in loaded("capture/invalid.json")["cases"]}
FOREIGN = {
    case["name"]: case
    for case in loaded("capture/foreign.json")["cases"]
    if case["kind"] != "safetensors"
}
QUERIES = loaded("capture/queries.json")
ASKED = {case["what"]: case for case in QUERIES["cases"] if "error" in case}
MAPS = loaded("layout_map/invalid.json")


def document(base: Any, case: dict[str, Any]) -> bytes:
    """The JSON text of a case."""
    text = case["text"] if "text" in case else json.dumps(patched(base, case["patch"]))
    return text.encode()


def sound_alone(data: bytes) -> bool:
    """Whether an object of the contract is refused only for a shape, which no file states."""
    try:
        read_any(data)
    except KvqError:
        return False
    return True


def documents() -> dict[str, tuple[dict[str, Any], bytes]]:
    """Profiles, calibrations and objects of the contract, by file and id."""
    found = {}
    for name in ("invalid", "calibration-invalid"):
        told = loaded(f"profile/{name}.json")
        for case in told["cases"]:
            found[f"{name} {case['id']}"] = (case, document(told["base"], case))
    for group in loaded("contract/invalid.json")["groups"]:
        for case in group["cases"]:
            data = document(group["base"], case)
            if not sound_alone(data):
                found[f"{group['object']} {case['name']}"] = (case, data)
    return found


DOCUMENTS = documents()


def check(case: dict[str, Any], folder: Path, *command: object) -> None:
    """The command is refused as the case says, and leaves everything as it is."""
    with left_alone(folder):
        refused(kvq(*command), case["exit"], case["error"])


def test_there_are_enough() -> None:
    """200 containers, 80 captures, 60 profiles and calibrations; each with both codes."""
    captures = [*HEADERS.values(), *CAPTURES.values(), *ASKED.values()]
    documents = [case for case, _ in DOCUMENTS.values()]
    assert len(CONTAINERS) >= 200
    assert len(captures) >= 80
    assert len(documents) >= 60
    every = [*CONTAINERS.values(), *captures, *documents, *MAPS["cases"]]
    assert all(case["exit"] == MEANINGS[case["error"]][0] for case in every)


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name: str, tmp_path: Path) -> None:
    """verify refuses the container."""
    case, path = CONTAINERS[name], tmp_path / "bad.kvq"
    path.write_bytes(surgery.operate(BASES[case["base"]], case["edits"], BASES))
    check(case, tmp_path, "verify", path)


@pytest.mark.parametrize("name", HEADERS)
def test_headers(name: str, tmp_path: Path) -> None:
    """compress refuses the safetensors file."""
    case, path = HEADERS[name], tmp_path / "bad.safetensors"
    if "file_hex" in case:
        path.write_bytes(bytes.fromhex(case["file_hex"]))
    else:
        hexed = "header_hex" in case
        text = bytes.fromhex(case["header_hex"]) if hexed else case["header"].encode()
        text += b" " * case.get("spaces", 0)
        path.write_bytes(raw_safetensors(text, case["data"], case.get("length")))
    check(case, tmp_path, "compress", path)


@pytest.mark.parametrize("name", CAPTURES)
def test_captures(name: str, tmp_path: Path) -> None:
    """compress refuses the file, folder or index."""
    case = CAPTURES[name]
    path = lay_out(case["capture"], tmp_path / "cache") / case.get("give", "")
    told = [word for meta in case.get("meta", []) for word in ("--meta", meta)]
    told += ["--layout", case["layout"]] if "layout" in case else []
    check(case, tmp_path, "compress", path, "-p", case.get("profile", "lossless"), *told)


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_tools(name: str, tmp_path: Path) -> None:
    """compress refuses the file as what it is, or as a damaged one."""
    case = FOREIGN[name]
    path = tmp_path / case["file"]
    path.write_bytes(bytes.fromhex(case["first_hex"]))
    code, error = (4, "E209") if case["kind"] else (3, "E201")
    check({"exit": code, "error": error}, tmp_path, "compress", path)


@pytest.mark.parametrize("name", ASKED)
def test_queries(name: str, tmp_path: Path) -> None:
    """stats refuses the queries, for this capture."""
    case, cache, asked = ASKED[name], tmp_path / "cache", tmp_path / "asked"
    cache.write_bytes(capture_bytes(case.get("capture", QUERIES["capture"])))
    asked.write_bytes(capture_bytes(case["queries"]))
    check(case, tmp_path, "stats", cache, "--queries", asked)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_profiles(name: str, tmp_path: Path) -> None:
    """profile check refuses the profile, calibration or object of the contract."""
    case, data = DOCUMENTS[name]
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    check(case, tmp_path, "profile", "check", path)


@pytest.mark.parametrize("case", MAPS["cases"], ids=lambda case: case["id"][:60])
def test_layout_maps(case: dict[str, Any], tmp_path: Path) -> None:
    """compress refuses the layout map, or the tensor that does not suit it."""
    told, path = tmp_path / "map.json", tmp_path / "cache"
    name, shape = case.get("tensor", "key"), case.get("shape", [1, 1, 1, 1])
    path.write_bytes(safetensors_bytes({name: ("F16", shape, bytes(2 * math.prod(shape)))}))
    fits = "layout_map" in case
    told.write_bytes(
        json.dumps(case["layout_map"]).encode() if fits else document(MAPS["base"], case)
    )
    check(case, tmp_path, "compress", path, "--layout", told)
