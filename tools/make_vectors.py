"""make_vectors: the only writer of formats/vectors/codecs/*.json.

    python tools/make_vectors.py [NAME...]     write the files of these codecs, or of all
    python tools/make_vectors.py --check       compare them with what would be written

Recipes lie in tools/codec_vectors/, one module per codec. Vectors are written on purpose,
after the spec changed, and reviewed like code; no test writes one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from codec_vectors.recipe import Case, Group, PackedPlanes, painted

from kvq_cli.codecs import Codec, NonFinite, page_of
from kvq_cli.codecs.matrices import FORWARD, forward_name
from kvq_cli.codecs.registry import codec_from_json, names, newest
from kvq_cli.errors import KvqError
from kvq_cli.numerics.scratch import Scratch, Tables
from kvq_cli.page import Page, PageSpec
from kvq_cli.planes import pack, table_spec, unpack
from kvq_cli.words import Place

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "formats" / "vectors" / "codecs"
RECIPES = ROOT / "tools" / "codec_vectors"


def restored(
    codec: Codec, planes: PackedPlanes, spec: PageSpec, case: Case, tables: Tables
) -> dict[str, Any]:
    """What decoding gives: bits, or an error id."""
    into = page_of(PageSpec(*spec.shape, case.target or spec.dtype))
    named = {"as": case.target.value} if case.target else {}
    try:
        arrays = unpack(codec.layout(spec), [memoryview(plane) for plane in planes.values()])
        codec.decode(arrays, spec, into, Scratch(tables))
    except KvqError as refusal:
        return {**named, "error": refusal.error_id}
    return {**named, "restored": into.bits.tobytes().hex()}


def encoded(codec: Codec, page: Page, tables: Tables) -> PackedPlanes:
    layout = codec.layout(page.spec)
    packed = pack(layout, codec.encode(page, Scratch(tables)))
    return {plane.name: bytes(data) for plane, data in zip(layout, packed, strict=True)}


def case_json(codec: Codec, group: Group, case: Case, tables: Tables) -> dict[str, Any]:
    spec = group.spec if case.place is None else replace(group.spec, place=case.place)
    told = {} if case.place is None else {"place": place_json(case.place)}
    source = group.cases[0].page if case.page is None else case.page
    bits = painted(spec) if isinstance(source, dict) else source
    if bits is None:
        raise SystemExit(f"{codec}: the first case of a group needs a page")
    shown = source if isinstance(source, dict) else bits.tobytes().hex()
    try:
        planes = encoded(codec, Page(spec, np.ascontiguousarray(bits)), tables)
    except NonFinite as refusal:
        return {**told, "page": shown, "error": refusal.error_id, "first": list(refusal.first)}
    except KvqError as refusal:
        if case.change is None or case.place is None:
            return {**told, "page": shown, "error": refusal.error_id}
        planes = encoded(codec, Page(group.spec, bits), tables)  # refused at that place alone
    if case.change is not None:
        planes = case.change(planes)
    result = restored(codec, planes, spec, case, tables)
    both_ways = case.change is None and "error" not in result
    written = {name: plane.hex() for name, plane in planes.items()}
    return {**told, **({"page": shown} if both_ways else {}), "planes": written, **result}


def place_json(place: Place) -> dict[str, Any]:
    numbers = {"layer": place.layer, "layers": place.layers, "position": place.position}
    return {"role": place.role.word, **numbers}


def vectors(name: str) -> str:
    """The text of one codec's vector file."""
    recipe = importlib.import_module(f"codec_vectors.{name}")
    arrays = recipe.tables() if hasattr(recipe, "tables") else []
    stored = [{**table_spec(table).to_json(), "bytes": table.tobytes().hex()} for table in arrays]
    tables = {each["digest"]: table for each, table in zip(stored, arrays, strict=True)}
    found = list(recipe.forward()) if hasattr(recipe, "forward") else []
    forward = [
        {key: part.tobytes().hex() if key in FORWARD else part for key, part in each.items()}
        for each in found
    ]
    for each in found:
        for part in FORWARD:
            tables[forward_name(each["basis"], each["group"], part)] = each[part]
    number = 0
    groups, refused = [], []
    for group in recipe.groups():
        codec = codec_from_json(name, group.params, "")
        spec = group.spec
        cases = []
        for case in group.cases:
            number += 1
            unknown = set(case.flags) - set(recipe.NOTES)
            if unknown:
                raise SystemExit(f"{name}: no note for {unknown}")
            made = case_json(codec, group, case, tables)
            cases.append({"id": number, "flags": case.flags, **made})
        shape = {"heads": spec.heads, "tokens": spec.tokens, "channels": spec.channels}
        members = {**shape, "dtype": spec.dtype.value}
        if spec.place is not None:
            members["place"] = place_json(spec.place)
        groups.append({"params": group.params, "spec": members, "cases": cases})
    for params, pointer in recipe.REFUSED:
        number += 1
        refused.append({"id": number, "params": params, "pointer": pointer, "error": "E401"})
    head = {"schema": "codec-vector.schema.json", "codec": name, "revision": newest(name)}
    exact = getattr(recipe, "EXACT", "encode")
    held = {"tables": stored} if stored else {}
    held |= {"forward": forward} if forward else {}
    return layout_text({**head, "exact": exact, "notes": recipe.NOTES, **held}, groups, refused)


def layout_text(
    head: dict[str, Any], groups: list[dict[str, Any]], refused: list[dict[str, Any]]
) -> str:
    """JSON with one case a line, so that a change shows as one line."""
    lines = ["{"]
    lines += [f"{json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    lines.append('"groups": [')
    for at, group in enumerate(groups):
        opening = {"params": group["params"], "spec": group["spec"]}
        lines.append(json.dumps(opening)[:-1] + ', "cases": [')
        lines.append(",\n".join(f"  {json.dumps(case)}" for case in group["cases"]))
        lines.append("]}," if at + 1 < len(groups) else "]}")
    lines += ["],", '"refused": [']
    lines.append(",\n".join(f"  {json.dumps(case)}" for case in refused))
    return "\n".join([*lines, "]", "}", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    options = parser.parse_args()
    stale = 0
    for name in options.names or names():
        if not (RECIPES / f"{name}.py").is_file():
            print(f"{name}: no recipe tools/codec_vectors/{name}.py", file=sys.stderr)
            stale += 1
            continue
        path, text = FOLDER / f"{name}.json", vectors(name)
        if not options.check:
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            print(f"{path.relative_to(ROOT)} is not what its recipe makes", file=sys.stderr)
            stale += 1
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
