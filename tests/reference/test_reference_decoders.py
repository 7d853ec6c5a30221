"""The reference decoders against every codec vector, and against kvq on pages and damage."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.decoders import CODECS, fits, tables_of
from reference.refused import Refused, need
from reference.rotating import BOOKS
from reference.transforming import Place

import kvq_cli.words
from kvq_cli.codecs import page_of
from kvq_cli.codecs.registry import CODECS as TABLE
from kvq_cli.codecs.registry import codec_from_json, codec_to_json
from kvq_cli.errors import CodecError
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import pack, unpack
from kvq_cli.words import Role

FOLDER = Path(__file__).parents[2] / "formats" / "vectors" / "codecs"
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
GROUPS = [
    pytest.param(name, group, id=f"{name}-{group['cases'][0]['id']}")
    for name, document in FILES.items()
    for group in document["groups"]
]
REFUSED = [
    pytest.param(name, case["params"], id=f"{name}-{case['id']}")
    for name, document in FILES.items()
    for case in document["refused"]
]
TABLES = {
    table["digest"]: np.frombuffer(bytes.fromhex(table["bytes"]), table["dtype"]).reshape(
        table["shape"]
    )
    for document in FILES.values()
    for table in document.get("tables", [])
}
ALLOWED = {
    "int8": {"axis": ("token", "channel"), "center": (False, True)},
    "fp8_e4m3": {"center": (False, True)},
    "fp8_e5m2": {"center": (False, True)},
    "int4": {"group": (32, 64, 128), "zero_point": (False, True), "center": (False, True)},
    "kivi": {"bits": (2, 3, 4, 8), "group": (32, 64, 128), "axis": ("token", "channel")},
}
INSTANCES = [("fib_quant", group["params"]) for group in FILES["fib_quant"]["groups"]] + [
    (name, dict(zip([*allowed, "scale"], values, strict=True)))
    for name, allowed in ALLOWED.items()
    for values in itertools.product(*allowed.values(), ("f16", "f32"))
]
NORMED = ("turboquant_mse", "turboquant_prod", "fibquant")
ROTATED = {"turboquant_mse": (1, 2, 3, 4, 5, 6, 7, 8), "turboquant_prod": (2, 3, 4, 5)}
INSTANCES += [
    (name, {"bits": bits, "rotation": rotation, "norm": norm, "center": center, "seed": bits % 3})
    for name, widths in ROTATED.items()
    for bits in widths
    for rotation in ("hadamard", "haar")
    for norm, center in (("f16", False), ("f32", True))
]
INSTANCES += [
    (
        "fibquant",
        {"block": block, "size": size, "rotation": rotation, "norm": norm, "center": center},
    )
    for block, size in BOOKS
    for rotation, norm, center in (("hadamard", "f16", False), ("haar", "f32", True))
]


def complete(name, params):
    """Parameters as a container's header has them, defaults included."""
    return codec_to_json(codec_from_json(name, params, ""))["params"]


def reference(name, params, spec, dtype, planes, place=None):
    """The bits that the reference decoder restores; Refused where it refuses."""
    decoder = CODECS[name, 1]
    decoder.check(params)
    codec = {"name": name, "revision": 1, "params": params}
    tables = [TABLES[table["digest"]] for table in tables_of(codec)]
    lengths = [len(plane) for plane in planes]
    need(fits(decoder, params, spec, dtype, lengths), "plane sizes")
    told = {"place": place} if hasattr(decoder, "placed") else {}
    return decoder.decode(params, spec, dtype, planes, *tables, **told).tobytes()


def place_of(*told):
    """The last place that a vector tells."""
    found = [each for each in told if each is not None]
    if not found:
        return None
    numbers = (found[-1][part] for part in ("layer", "layers", "position"))
    return Place(("key", "value").index(found[-1]["role"]), *numbers)


def test_every_codec_has_a_reference_decoder():
    """What the registry can write, the reference reader can read."""
    assert set(CODECS) == set(TABLE)


@pytest.mark.parametrize(("name", "group"), GROUPS)
def test_vectors(name, group):
    """Planes are restored or refused as the vectors say."""
    params = complete(name, group["params"])
    *spec, dtype = (group["spec"][member] for member in ("heads", "tokens", "channels", "dtype"))
    for case in group["cases"]:
        if "planes" not in case or "as" in case:
            continue
        planes = [bytes.fromhex(plane) for plane in case["planes"].values()]
        place = place_of(group["spec"].get("place"), case.get("place"))
        if "error" in case:
            with pytest.raises(Refused):
                reference(name, params, tuple(spec), dtype, planes, place)
        else:
            found = reference(name, params, tuple(spec), dtype, planes, place)
            assert found.hex() == case["restored"], case["id"]


@pytest.mark.parametrize(("name", "params"), REFUSED)
def test_refused_parameters(name, params):
    """Parameters that are not allowed are refused here too."""
    whole = complete(name, FILES[name]["groups"][0]["params"])
    if params:
        with pytest.raises(Refused):
            CODECS[name, 1].check({**whole, **params})


def kvq(codec, spec, planes):
    """The bits that kvq restores, or the id of its refusal."""
    into = page_of(spec)
    try:
        arrays = unpack(codec.layout(spec), [memoryview(plane) for plane in planes])
        codec.decode(arrays, spec, into, Scratch(TABLES))
    except CodecError as refusal:
        return refusal.error_id
    return into.bits.tobytes()


def page(rng, spec, name=""):
    """Magnitudes of any size a dtype has, none so large that a half cannot be its scale.

    Nor its norm, for codecs that have one; fib_quant refuses small ones too.
    """
    exponents = {DType.F16: (-24, 15), DType.BF16: (-133, 16), DType.F32: (-149, 16)}[spec.dtype]
    if name in NORMED:
        exponents = (exponents[0], 11)
    elif name == "fib_quant":
        exponents = (-12, 8)
    reach = np.exp2(rng.uniform(*exponents, (spec.heads, spec.tokens, 1)))
    values = rng.uniform(-1, 1, spec.shape) * reach
    if spec.dtype is DType.F16:
        return Page(spec, values.astype(np.float16).view(np.uint16))
    words = values.astype(np.float32).view(np.uint32)
    return Page(spec, words if spec.dtype is DType.F32 else (words >> 16).astype(np.uint16))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_pages_and_damage(data):
    """Of encoded pages, whole or with other bytes, both decoders make the same bits or none."""
    name, params = data.draw(st.sampled_from(INSTANCES))
    dtype = data.draw(st.sampled_from(list(DType)))
    sizes = ([1, 2], [1, 2, 5, 33], [1, 3, 8, 33, 65])
    spec = PageSpec(*(data.draw(st.sampled_from(size)) for size in sizes), dtype)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    if name == "fib_quant":
        spec = PageSpec(spec.heads, spec.tokens, params["dim"], dtype)
    codec = codec_from_json(name, params, "")
    layout = codec.layout(spec)
    original = page(rng, spec, name)
    packed = pack(layout, codec.encode(original, Scratch(TABLES)))
    planes = [bytearray(one) for one in packed]
    params = complete(name, params)
    found = reference(name, params, spec.shape, dtype.value, planes)
    assert found == kvq(codec, spec, planes)
    for _ in range(data.draw(st.integers(1, 4))):
        plane = planes[data.draw(st.integers(0, len(planes) - 1))]
        plane[data.draw(st.integers(0, len(plane) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = reference(name, params, spec.shape, dtype.value, planes)
    except Refused:
        found = "E502"
    assert found == kvq(codec, spec, planes)


TRANSFORMED = [
    (group, case)
    for group in FILES["transform"]["groups"]
    for case in group["cases"]
    if "restored" in case and "as" not in case
]


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged_coefficients(data):
    """Of planes of open length with other bytes, more or fewer, likewise."""
    group, case = data.draw(st.sampled_from(TRANSFORMED))
    place = place_of(group["spec"].get("place"), case.get("place"))
    kind, *shape = (group["spec"][part] for part in ("dtype", "heads", "tokens", "channels"))
    told = kvq_cli.words.Place(Role(place.role), place.layer, place.layers, place.position)
    spec = PageSpec(*shape, DType(kind), told)
    planes = [bytearray.fromhex(plane) for plane in case["planes"].values()]
    classes, _, words = planes
    for _ in range(data.draw(st.integers(0, 3))):
        plane = data.draw(st.sampled_from([each for each in planes if each]))
        plane[data.draw(st.integers(0, len(plane) - 1))] = data.draw(st.integers(0, 255))
    longer = data.draw(st.integers(-4, 4))
    words += bytes(2 * max(longer, 0))
    del words[max(len(words) + 2 * min(longer, 0), 0) :]
    if data.draw(st.booleans()):
        classes.append(data.draw(st.integers(0, 255)))
    params = complete("transform", group["params"])
    try:
        found = reference("transform", params, tuple(shape), kind, planes, place)
    except Refused:
        found = "E502"
    assert found == kvq(codec_from_json("transform", params, ""), spec, planes)
