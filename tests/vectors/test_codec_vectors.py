"""formats/vectors/codecs: every case of every codec, and the files themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from kvq_cli.codecs import NonFinite, page_of
from kvq_cli.codecs.matrices import FORWARD, forward_name
from kvq_cli.codecs.registry import CODECS, codec_from_json
from kvq_cli.errors import CodecError, ProfileError
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import pack, table_spec, unpack
from kvq_cli.words import Place, Role

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "formats" / "vectors" / "codecs"
SCHEMA = json.loads((ROOT / "formats" / "schemas" / "codec-vector.schema.json").read_text())
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
CASES = [
    pytest.param(name, group, case, id=f"{name}-{case['id']}-{'-'.join(case['flags'])}")
    for name, document in FILES.items()
    for group in document["groups"]
    for case in group["cases"]
]
REFUSED = [
    pytest.param(name, case, id=f"{name}-{case['id']}")
    for name, document in FILES.items()
    for case in document["refused"]
]
every_file = pytest.mark.parametrize("name", FILES)


def bits_of(page, spec):
    if page == {"paint": 251}:
        values = ((np.arange(spec.elements) % 251) - 125) / 32
        if spec.dtype is DType.F16:
            return values.astype(np.float16).view(np.uint16).reshape(spec.shape)
        words = values.astype(np.float32).view(np.uint32).reshape(spec.shape)
        return words if spec.dtype is DType.F32 else (words >> 16).astype(np.uint16)
    return np.frombuffer(bytes.fromhex(page), spec.dtype.bits).reshape(spec.shape)


def tables_of(document):
    return {
        table["digest"]: np.frombuffer(bytes.fromhex(table["bytes"]), table["dtype"]).reshape(
            table["shape"]
        )
        for table in document.get("tables", [])
    }


def forward_of(document):
    """What an encoder finds beside the tables."""
    return {
        forward_name(each["basis"], each["group"], part): array
        for each in document.get("forward", [])
        for part, array in zip(FORWARD, forward_parts(each), strict=True)
    }


def forward_parts(each):
    matrix, inward, outward = (np.frombuffer(bytes.fromhex(each[part]), "<i2") for part in FORWARD)
    return matrix.reshape(len(inward), len(outward)), inward, outward


def placed(spec, *places):
    """The spec with the last place that is told."""
    told = [place for place in places if place is not None]
    if not told:
        return spec
    return replace(spec, place=Place(**told[-1] | {"role": Role[told[-1]["role"].upper()]}))


TABLES = {digest: table for one in FILES.values() for digest, table in tables_of(one).items()}
BESIDE = {name: array for one in FILES.values() for name, array in forward_of(one).items()}


def check_encode(codec, spec, case, *, exact):
    page = Page(spec, bits_of(case["page"], spec))
    layout = codec.layout(spec)
    if "error" in case:
        with pytest.raises(CodecError) as refusal:
            codec.encode(page, Scratch(TABLES | BESIDE))
        assert refusal.value.error_id == case["error"]
        assert isinstance(refusal.value, NonFinite) == ("first" in case)
        if "first" in case:
            assert list(refusal.value.first) == case["first"]
        return
    packed = pack(layout, codec.encode(page, Scratch(TABLES | BESIDE)))
    if exact:
        named = dict(zip((plane.name for plane in layout), packed, strict=True))
        assert {name: bytes(data).hex() for name, data in named.items()} == case["planes"]


def decode(codec, spec, case):
    packed = [memoryview(bytes.fromhex(plane)) for plane in case["planes"].values()]
    into = page_of(PageSpec(*spec.shape, DType(case.get("as", spec.dtype))))
    codec.decode(unpack(codec.layout(spec), packed), spec, into, Scratch(TABLES))
    return into.bits.tobytes().hex()


@pytest.mark.parametrize(("name", "group", "case"), CASES)
def test_case(name, group, case):
    """What is encoded, decoded or refused is what the vector says."""
    codec = codec_from_json(name, group["params"], "", revision=FILES[name]["revision"])
    shape = {**group["spec"], "dtype": DType(group["spec"]["dtype"]), "place": None}
    spec = placed(PageSpec(**shape), group["spec"].get("place"), case.get("place"))
    if "page" in case:
        check_encode(codec, spec, case, exact=FILES[name]["exact"] == "encode")
    if "planes" not in case:
        return
    if "error" in case:
        with pytest.raises(CodecError) as refusal:
            decode(codec, spec, case)
        assert refusal.value.error_id == case["error"]
    else:
        assert decode(codec, spec, case) == case["restored"]


@pytest.mark.parametrize(("name", "case"), REFUSED)
def test_refused_parameters(name, case):
    """Parameters that are not allowed are refused at their JSON pointer."""
    with pytest.raises(ProfileError) as refusal:
        codec_from_json(name, case["params"], "")
    assert refusal.value.error_id == case["error"]
    assert refusal.value.pointer == case["pointer"]


@every_file
def test_file_is_valid(name):
    """The file matches the schema, names a codec of the registry, and numbers its cases."""
    document = FILES[name]
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["codec"] == name
    assert (name, document["revision"]) in CODECS
    cases = [case for group in document["groups"] for case in group["cases"]]
    numbers = [case["id"] for case in cases + document["refused"]]
    assert numbers == list(range(1, len(numbers) + 1))
    used = {flag for case in cases for flag in case["flags"]}
    assert used == set(document["notes"])


def test_tables_are_what_their_digests_say():
    """A codec that finds its tables by digest finds these."""
    for digest, table in TABLES.items():
        assert table_spec(table).digest == digest


@every_file
def test_most_cases_are_refused(name):
    """A decoder is trusted for what it refuses: damaged and invalid cases are the majority."""
    cases = [case for group in FILES[name]["groups"] for case in group["cases"]]
    assert sum("error" in case for case in cases) * 2 > len(cases)


@every_file
def test_every_group_has_a_case_that_decodes(name):
    """No parameters and no spec are there for refusals alone."""
    for group in FILES[name]["groups"]:
        assert any("restored" in case for case in group["cases"])


def test_files_are_what_the_tool_makes():
    """Vectors are never edited by hand."""
    command = [sys.executable, ROOT / "tools" / "make_vectors.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_schema_refuses_what_it_should():
    """Unknown members, wrong hex and contradicting results do not validate."""
    good = {"id": 1, "flags": [], "planes": {"codes": "00"}, "restored": "00"}
    case = jsonschema.Draft202012Validator({"$defs": SCHEMA["$defs"], "$ref": "#/$defs/case"})
    case.validate(good)
    wrong = [{"error": "E502"}, {"more": 1}, {"restored": "0"}, {"restored": "zz"}, {"as": "F64"}]
    for change in wrong:
        assert not case.is_valid({**good, **change})
    assert not case.is_valid({"id": 1, "flags": []})
