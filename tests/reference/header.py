"""header: the members of a container's header, checked against formats/container.md.

Part of the reference reader: written from `formats/` alone, without kvq_cli.
`read_header` returns a Header, from which a reader knows what every chunk may hold.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from blake3 import blake3
from reference import kv_profile
from reference.decoders import CODECS, WIDTHS, tables_of
from reference.refused import Refused, need

ROLES = ("key", "value")
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8}
BITS |= {"F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16}
BITS |= {"F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
BITS |= {"C64": 64, "F64": 64, "I64": 64, "U64": 64}
TABLE_SIZES = {"|i1": 1, "|u1": 1, "<i2": 2, "<u2": 2, "<i4": 4, "<u4": 4}
TABLE_SIZES |= {"<f2": 2, "<f4": 4, "<f8": 8}
CONTENT = (
    "schema layout identity files tensors parts head_sets codecs tables profiles token_offset"
    " continues probe queries_digest calibration_digest"
)
SHAPE = (
    "schema_version role attention_kind batch layers kv_heads query_heads tokens head_dim dtype"
    " rope_state"
)


@dataclass(frozen=True)
class Slab:
    """What all pages of one role and layer share."""

    batch: int
    heads: int
    tokens: int
    channels: int
    dtype: str


@dataclass(frozen=True)
class Header:
    content: dict[str, Any]
    storage: dict[str, Any]
    slabs: dict[tuple[int, int], Slab]  # by role number and layer


def canonical(value: Any) -> bytes:
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
    )
    return text.encode()


def tagged(tag: str, *parts: bytes) -> bytes:
    return blake3(b"\0".join([tag.encode(), b""]) + b"".join(parts)).digest()


def read_header(text: bytes, alignment: int, features: int = 0) -> Header:
    """The header of this text; Refused where a member is not what the spec says."""
    try:
        value = json.loads(text)
        again = canonical(value)
    except (ValueError, RecursionError) as error:
        need(False, f"header is not JSON: {error}")
    need(again == text, "header is not canonical JSON")
    check_depth(value, 32)
    members(value, "content storage")
    content, storage = value["content"], value["storage"]
    partial, referenced = bool(features & 1), bool(features & 2)
    members(storage, "alignment entropy level writer" + " referenced" * referenced)
    need(integer(storage["alignment"]) == alignment, "alignment differs from the preamble's")
    need(storage["entropy"] in ("zstd", "none"), "storage.entropy")
    need(1 <= integer(storage["level"]) <= 22, "storage.level")
    string(storage["writer"])
    slabs = check_content(content, partial=partial)
    if referenced:
        elsewhere = array(storage["referenced"])
        digests = [each["digest"] for each in content["tables"]]
        need(elsewhere and elsewhere == [one for one in digests if one in elsewhere], "referenced")
        need(content["calibration_digest"] is not None, "a calibration that has the tables")
        lost = content.get("partial", {"tables": []})["tables"]
        need(not any(digests[at] in elsewhere for at in lost), "a lost table lies elsewhere")
    return Header(content, storage, slabs)


def check_depth(value: Any, left: int) -> None:
    if type(value) in (dict, list):
        need(left > 0, "header is nested deeper than 32")
        for member in value.values() if type(value) is dict else value:
            check_depth(member, left - 1)
    need(type(value) is not int or abs(value) < 10**40, "an integer of more than 40 digits")


def members(value: Any, names: str) -> None:
    need(type(value) is dict and set(value) == set(names.split()), f"members are not {names}")


def integer(value: Any, low: int = 0, high: int = 2**63 - 1) -> int:
    need(type(value) is int and low <= value <= high, f"not an integer of {low} to {high}")
    return value


def string(value: Any) -> str:
    need(type(value) is str, "not a string")
    return value


def array(value: Any) -> list[Any]:
    need(type(value) is list, "not an array")
    return value


def digest_text(value: Any) -> None:
    need(type(value) is str and len(value) == 71 and value.startswith("blake3:"), "not a digest")
    need(set(value[7:]) <= set("0123456789abcdef"), "not a digest")


def check_content(content: Any, *, partial: bool) -> dict[tuple[int, int], Slab]:
    members(content, CONTENT + " partial" if partial else CONTENT)
    need(content["schema"] == "kvq_container_v1", "content.schema")
    string(content["layout"])
    need(type(content["identity"]) is dict, "content.identity")
    for value in content["identity"].values():
        string(value)
    integer(content["token_offset"])
    need(content["probe"] in ("none", "self", "capture", "file"), "content.probe")
    need((content["continues"] is None) == (content["token_offset"] == 0), "a segment, or none")
    for name in ("continues", "queries_digest", "calibration_digest"):
        if content[name] is not None:
            digest_text(content[name])
    for heads in array(content["head_sets"]):
        numbers = [integer(head, 0, 2**16 - 1) for head in array(heads)]
        need(bool(numbers) and numbers == sorted(set(numbers)), "head set is not ascending")
    for codec in array(content["codecs"]):
        members(codec, "name revision params")
        known = CODECS.get((string(codec["name"]), integer(codec["revision"])))
        need(known is not None, "unknown codec")
        known.check(codec["params"])
    check_tables(array(content["tables"]), content["codecs"])
    check_profiles(array(content["profiles"]))
    slabs = check_parts(array(content["parts"]))
    check_files(content["files"])
    check_tensors(array(content["tensors"]), content["files"], slabs)
    if partial:
        check_partial(content["partial"], content)
    return slabs


def check_partial(partial: Any, content: Any) -> None:
    members(partial, "header_digest content_root files tables tensors")
    digest_text(partial["header_digest"])
    if partial["content_root"] is not None:
        digest_text(partial["content_root"])
    counts = {"files": len(content["files"] or [None]), "tables": len(content["tables"])}
    for name, count in counts.items():
        numbers = [integer(number, 0, count - 1) for number in array(partial[name])]
        need(numbers == sorted(set(numbers)), f"{name} that are lost do not ascend")
    places = []
    for piece in array(partial["tensors"]):
        need(len(array(piece)) == 2, "piece of a tensor")
        tensor = content["tensors"][integer(piece[0], 0, len(content["tensors"]) - 1)]
        need(tensor["rows"] is None, "piece of a tensor that pages hold")
        need(integer(piece[1], 0, tensor["nbytes"] - 1) % 2**22 == 0, "offset of a piece")
        places.append(tuple(piece))
    need(places == sorted(set(places)), "pieces that are lost do not ascend")


def check_files(files: Any) -> None:
    if files is None:
        return
    need(1 <= len(array(files)) <= 4096, "a folder of no files, or too many")
    names = []
    for file in files:
        members(file, "name digest")
        names.append(string(file["name"]))
        need(len(names[-1]) <= 512 and names[-1].isprintable(), "file name")
        need("\\" not in names[-1], "file name")
        for step in names[-1].split("/"):
            need(step not in ("", ".", "..") and len(step.encode()) <= 255, "step of a file name")
        if file["digest"] is not None:
            digest_text(file["digest"])
    need(names == sorted(set(names)), "file names do not ascend")
    for name in names:
        need(not any(other.startswith(name + "/") for other in names), "a file and a folder")


def check_tables(tables: list[Any], codecs: list[Any]) -> None:
    """Each as it should be, and those that the codecs need."""
    need(len(tables) <= 64, "more than 64 tables")
    total = 0
    for table in tables:
        members(table, "dtype shape digest")
        need(string(table["dtype"]) in TABLE_SIZES, "table dtype")
        shape = [integer(length, 1, 2**26) for length in array(table["shape"])]
        need(1 <= len(shape) <= 4, "table shape")
        digest_text(table["digest"])
        total += math.prod(shape) * TABLE_SIZES[table["dtype"]]
    need(total <= 2**26, "more than 64 MiB of tables")
    need(len({table["digest"] for table in tables}) == len(tables), "a table is there twice")
    needed = [table for codec in codecs for table in tables_of(codec)]
    need(all(table in tables for table in needed), "a table of a codec is missing")
    need(all(table in needed for table in tables), "a table that no codec needs")


def check_profiles(profiles: list[Any]) -> None:
    roles = []
    for entry in profiles:
        members(entry, "roles profile digest")
        need(type(entry["profile"]) is dict, "profile is not an object")
        need(entry["digest"] == profile_digest(entry["profile"]), "profile digest does not hold")
        roles += array(entry["roles"])
    need(all(role in ROLES for role in roles) and len(roles) == len(set(roles)), "profile roles")


def profile_digest(profile: dict[str, Any]) -> str:
    if profile.get("schema_version") == kv_profile.SCHEMA:
        return kv_profile.digest(profile)
    need(profile.get("schema") == "kvq_profile_v1", "profile.schema")
    need(not {"storage", "description"} & set(profile), "profile has storage")
    return "blake3:" + tagged("kvq_profile_v1", canonical(profile)).hex()


def check_parts(parts: list[Any]) -> dict[tuple[int, int], Slab]:
    slabs: dict[tuple[int, int], Slab] = {}
    used: set[int] = set()
    entries = all_heads = 0
    for part in parts:
        members(part, "layers batch kv_heads tokens key value")
        batch, heads = integer(part["batch"], 1, 2**16), integer(part["kv_heads"], 1, 2**16)
        tokens, layers = integer(part["tokens"], 1, 2**40), layers_of(part["layers"])
        need(used.isdisjoint(layers), "a layer lies in two parts")
        used.update(layers)
        entries += batch * len(layers)
        need(entries <= 2**16, "more than 65,536 layers times batch entries")
        all_heads += batch * heads * len(layers)
        need(all_heads <= 2**21, "more than 2^21 heads of layers and batch entries")
        need(part["key"] is not None or part["value"] is not None, "part without key and value")
        for number, role in enumerate(ROLES):
            if part[role] is None:
                continue
            members(part[role], "head_dim dtype shape shape_digest")
            channels = integer(part[role]["head_dim"], 1, 2**20)
            dtype = string(part[role]["dtype"])
            need(dtype in WIDTHS, "part dtype")
            slab = Slab(batch, heads, tokens, channels, dtype)
            check_shape(part[role], role, slab, len(layers))
            slabs |= {(number, layer): slab for layer in layers}
    return slabs


def layers_of(pairs: Any) -> list[int]:
    layers: list[int] = []
    for pair in array(pairs):
        need(len(array(pair)) == 2, "layers are pairs")
        start, stop = integer(pair[0]), integer(pair[1], 1, 2**16)
        need(start < stop and (not layers or layers[-1] < start), "layers do not ascend")
        layers += range(start, stop)
    need(bool(layers), "a part without layers")
    return layers


def check_shape(entry: Any, role: str, slab: Slab, layers: int) -> None:
    """The tensor shape of contract.md, with null where nobody told."""
    shape = entry["shape"]
    members(shape, SHAPE)
    facts = {"schema_version": "fib_quant_kv_tensor_shape_v1", "role": role, "batch": slab.batch}
    facts |= {"layers": layers, "kv_heads": slab.heads, "tokens": slab.tokens}
    facts |= {"head_dim": slab.channels, "dtype": slab.dtype.lower()}
    need({name: shape[name] for name in facts} == facts, "shape differs from its part")
    need(shape["attention_kind"] in (None, "mha", "mqa", "gqa"), "attention_kind")
    ropes = (None, "pre_rope", "post_rope") if role == "key" else ("not_applicable",)
    need(shape["rope_state"] in ropes, "rope_state")
    if shape["query_heads"] is not None:
        integer(shape["query_heads"], 1, 2**32 - 1)
    digest = None
    if None not in shape.values():
        kind, queries = shape["attention_kind"], shape["query_heads"]
        need(queries % slab.heads == 0, "kv_heads do not divide query_heads")
        need(kind != "mha" or queries == slab.heads, "mha with other query_heads")
        need(kind != "mqa" or slab.heads == 1, "mqa with several kv_heads")
        text = json.dumps({name: shape[name] for name in SHAPE.split()}, separators=(",", ":"))
        digest = "blake3:" + tagged(shape["schema_version"], text.encode()).hex()
    need(entry["shape_digest"] == digest, "shape digest does not hold")


def check_tensors(tensors: list[Any], files: Any, slabs: dict[tuple[int, int], Slab]) -> None:
    """Tensors hold each head of each slab once, and nothing else."""
    heads: dict[tuple[int, int], list[int]] = {place: [] for place in slabs}
    names, last = set(), 0
    for tensor in tensors:
        members(tensor, "file name dtype shape nbytes rows")
        file = integer(tensor["file"], last, 0 if files is None else len(files) - 1)
        need(files is None or files[file]["digest"] is None, "tensor of a file without any")
        last = file
        names.add((file, string(tensor["name"])))
        shape = [integer(length) for length in array(tensor["shape"])]
        need(len(shape) <= 8 and string(tensor["dtype"]) in BITS, "tensor shape or dtype")
        bits = math.prod(shape) * BITS[tensor["dtype"]]
        need(bits % 8 == 0 and integer(tensor["nbytes"]) == bits // 8, "tensor nbytes")
        if tensor["rows"] is not None:
            check_rows(tensor, math.prod(shape), slabs, heads)
    need(len(names) == len(tensors), "a tensor name occurs twice")
    for place, slab in slabs.items():
        need(sorted(heads[place]) == list(range(slab.heads)), "heads are not there once")


def check_rows(
    tensor: Any, count: int, slabs: dict[tuple[int, int], Slab], heads: dict[Any, list[int]]
) -> None:
    rows = tensor["rows"]
    members(rows, "roles axes lengths first_layer first_head tokens")
    roles = [string(role) for role in array(rows["roles"])]
    need(roles in (["key"], ["value"], ["key", "value"]), "roles")
    need(tensor["dtype"] in WIDTHS, "dtype of a tensor with rows")
    orders = string(rows["axes"]).split(",")
    need(len(orders) <= len(roles), "two orders of one role")
    need(type(rows["lengths"]) is dict, "lengths")
    length = dict.fromkeys("BLRHTtud", 1)
    for letter, value in rows["lengths"].items():
        length[letter] = integer(value, 1)
    for order in orders:
        need(len(order) == len(set(order)) and set(order) == set(rows["lengths"]), "axes")
        need(set("TD") <= set(order) <= set("BLRHTtuDd"), "axes")
        split = "u" in order or "d" in order
        last = order[1 + max(order.find(letter) for letter in "BLRT") :]
        need(not split or set(order) & set("HtuDd") == set(last), "axes behind a split one")
        need(("R" in order) == (length["R"] == 2) == (len(roles) == 2), "axes of two roles")
        if len(roles) == 2:
            need(order.split("R")[0] == orders[0].split("R")[0], "axes differ before R")
    need(math.prod(length.values()) == count, "lengths and shape")
    first, head = integer(rows["first_layer"]), integer(rows["first_head"])
    need(first + length["L"] <= 2**16 and head + length["H"] <= 2**16, "too many layers or heads")
    if split:
        block = math.prod(length[letter] for letter in "HtuDd")
        need(head == 0 and block * WIDTHS[tensor["dtype"]] <= 2**26, "block, or heads of it")
    tokens = integer(rows["tokens"], 1, length["T"] * length["t"] * length["u"])
    for role in roles:
        for layer in range(first, first + length["L"]):
            slab = slabs.get((ROLES.index(role), layer))
            need(slab is not None, "rows of a layer that no part has")
            need(not split or length["H"] == slab.heads, "heads of a split tensor")
            found = (length["B"], tokens, length["D"] * length["d"], tensor["dtype"])
            need(found == (slab.batch, slab.tokens, slab.channels, slab.dtype), "rows of a part")
            heads[ROLES.index(role), layer] += range(head, head + length["H"])


def sources(header: Header) -> list[Any]:
    """The files of the source; one that has no name may stand for all."""
    return header.content["files"] or [{"name": None, "digest": None}]


def listed(header: Header, file: int) -> list[tuple[Any, ...]]:
    """The tensors of a source file as the header lists them."""
    tensors = [one for one in header.content["tensors"] if one["file"] == file]
    return [(one["name"], one["dtype"], one["shape"], one["nbytes"]) for one in tensors]


def head_tensors(text: bytes) -> list[tuple[Any, ...]]:
    """The tensors that a safetensors header lists, in data order."""
    try:
        tensors = json.loads(text)
        tensors.pop("__metadata__", None)
        facts = [(*one["data_offsets"], name, one) for name, one in tensors.items()]
        facts.sort(key=lambda fact: fact[:2])
        stops = [0, *(stop for _, stop, *_ in facts)]
        need(stops[:-1] == [start for start, *_ in facts], "HEAD tensors leave gaps")
        return [(name, one["dtype"], one["shape"], b - a) for a, b, name, one in facts]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"HEAD is no safetensors header: {error}") from error
