"""Pages of several layers, by every codec: what comes back is what pages of one layer give."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from reference.reader import read

from kvq_cli import open_container, pipeline
from kvq_cli.codecs.registry import CODECS
from kvq_cli.errors import CodecError
from kvq_cli.profile import Fallback, Profile, Protected, Range, Rule
from kvq_cli.steps import audited, encode, pages
from kvq_cli.steps.select import Selection
from kvq_cli.words import Role
from support.captures import per_layer_capture
from support.variants import TABLES, suited, variants

# Two stretches of layers that are alike, of three and of four; CHANGED is protected.
TOKENS, CHANGED = (21, 21, 21, 40, 40, 40, 40), 4
HEADS, CHANNELS = 3, 32
# What a codec that asks for places makes of a layer depends on which others are with it:
# tests/cli/test_transform.py.
CODEC = {
    kind.name: suited(next(variants(kind)), CHANNELS) for kind in CODECS.values() if not kind.placed
}
every_codec = pytest.mark.parametrize("name", CODEC)
several = pytest.mark.parametrize("count", [2, 3])


def profile_of(name, count, **members):
    """Head 2, a layer and two tokens are raw, what is left is in pages of 16 tokens."""
    codec = CODEC[name]
    held = {"first_tokens": 1, "last_tokens": 1, "heads": (Range(2, None),)}
    return Profile(
        name=f"{name}-{count}".replace("_", "-"),
        rules=(Rule(codec),),
        page_tokens=16,
        page_layers=count,
        protected=Protected(layers=(Range(CHANGED, CHANGED + 1),), **held),
        tables={table.digest: TABLES[table.digest] for table in codec.tables()},
        **members,
    )


def capture_of(spoiled=None):
    """The capture; a NaN at a layer and head of keys where it is spoiled."""
    data = bytearray(per_layer_capture(tokens=TOKENS, heads=HEADS, channels=CHANNELS, batch=2))
    if spoiled:
        layer, head = spoiled
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        at = start + header[f"layers.{layer}.key"]["data_offsets"][0]
        at += 2 * (head * TOKENS[layer] * CHANNELS + 5 * CHANNELS + 3)
        data[at : at + 2] = b"\x01\x7e"
    return bytes(data)


def packed(folder, name, count, **members):
    """The container of the capture in a folder, in pages of so many layers."""
    box = folder / f"{name}-{count}.kvq"
    pipeline.compress(folder / "cache", box, profiles=[profile_of(name, count, **members)],
                      threads=1, force=True)  # fmt: skip
    return box


def restored(box, selection=None, **options):
    out = box.parent / "restored"
    pipeline.decompress(box, out, selection=selection, threads=1, force=True, **options)
    return out.read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The capture, and a container of one layer a page for each codec that was asked for."""
    folder = tmp_path_factory.mktemp("layers")
    (folder / "cache").write_bytes(capture_of())
    return folder


def groups(box):
    """First layer and layers of the pages of keys."""
    found = pipeline.inspect(box, pages=True).found["pages"]
    return sorted({(page["layer"], page["layers"]) for page in found if page["role"] == "key"})


@every_codec
@several
def test_every_codec(name, count, made):
    """Restored, verified and measured as pages of one layer are, by both readers."""
    one, box = packed(made, name, 1), packed(made, name, count)
    expected = [(0, 2), (2, 1), (3, 1), (4, 1), (5, 2)] if count == 2 else [
        (0, 3), (3, 1), (4, 1), (5, 2)]  # fmt: skip
    assert groups(box) == expected
    whole = restored(one)
    assert restored(box) == whole == read(box).source()
    assert pipeline.verify(box, against=made / "cache").broken == ()
    tables = [pipeline.stats(each, against=made / "cache", threads=1) for each in (one, box)]
    assert tables[0].errors == tables[1].errors
    assert sum(row["stored"] for row in tables[1].layers) == tables[1].stored_bytes
    places = [[(row["role"], row["layer"]) for row in table.layers] for table in tables]
    assert places[0] == places[1]
    assert tables[0].packed_bytes == tables[1].packed_bytes


@pytest.mark.parametrize("tokens", [TOKENS[:1], (21, 21, 20, *TOKENS[3:]), (*TOKENS, 3)])
def test_another_capture(tokens, made):
    """One that lacks a layer of a page, has it shorter, or has more: each page is told."""
    (made / "other").write_bytes(
        per_layer_capture(tokens=tokens, heads=HEADS, channels=CHANNELS, batch=2)
    )
    broken = pipeline.verify(packed(made, "int8", 3), against=made / "other").broken
    assert {each["error_id"] for each in broken} == {"E805"}
    told = " ".join(each["message"] for each in broken)
    assert ("layers 0:3" in told) == (len(tokens) <= len(TOKENS))


@every_codec
@several
def test_slices(name, count, made):
    """One layer and head, and other choices: files, and rows as arrays."""
    one, box = packed(made, name, 1), packed(made, name, count)
    for chosen in (
        Selection(chosen_layers=(1,), chosen_heads=(1,)),
        Selection(chosen_layers=(2, 6), chosen_heads=(0, 2), chosen_tokens=(0, 3, 17, 20)),
        Selection(chosen_layers=(slice(3, 7),), chosen_tokens=(slice(10, 30),)),
        Selection(roles=(Role.VALUE,), chosen_heads=(1,)),
    ):
        assert restored(box, chosen) == restored(one, chosen)
    with open_container(box) as cache, open_container(one) as other:
        for layer in range(len(TOKENS)):
            asked = {"heads": [2, 0], "tokens": [19, 0, 7], "batch": 1, "dtype": None}
            rows = cache.rows(Role.KEY, layer, **asked)
            assert np.array_equal(rows, other.rows(Role.KEY, layer, **asked))
            places = [each.page_places(Role.KEY, layer) for each in (cache, other)]
            assert places[0] == places[1]


@every_codec
def test_one_layer_is_the_default(name, made):
    """It is not told, so the file is the same to the byte."""
    plain = replace(profile_of(name, 1), page_layers=1)
    pipeline.compress(made / "cache", made / "plain", profiles=[plain], threads=1, force=True)
    assert (made / "plain").read_bytes() == packed(made, name, 1).read_bytes()
    assert b"page_layers" not in (made / "plain").read_bytes()


@every_codec
@several
def test_a_nan_keeps_its_head_raw_in_all_layers(name, count, tmp_path):
    """The page falls into one a head; the other heads, and other groups, are coded."""
    (tmp_path / "cache").write_bytes(capture_of((1, 1)))
    box = packed(tmp_path, name, count)
    assert pipeline.verify(box, against=tmp_path / "cache").broken == ()
    found = pipeline.inspect(box, pages=True).found["pages"]
    raw = [page for page in found if page["reason"] == "non-finite"]
    assert read(box).source() == restored(box)
    if CODEC[name].lossless:
        assert raw == []
        return
    places = {(page["role"], page["batch"], page["layer"], page["layers"]) for page in raw}
    assert places == {("key", 0, 0, count)}
    assert [page["heads"] for page in raw] == [[1]] * len(raw)
    (source, back) = ((tmp_path / "cache").read_bytes(), restored(box))
    start = 8 + int.from_bytes(source[:8], "little")
    spans = {at: json.loads(source[8:start])[f"layers.{at}.key"]["data_offsets"] for at in (0, 2)}
    rows = {
        at: [np.frombuffer(data[start:][slice(*span)], "<u2").reshape(2, HEADS, -1, CHANNELS)
             for data in (source, back)]
        for at, span in spans.items()
    }  # fmt: skip
    same = {at: np.array_equal(*(each[0, 1, 1:16] for each in pair)) for at, pair in rows.items()}
    assert same == {0: True, 2: count == 3}


@pytest.mark.parametrize("name", [name for name, codec in CODEC.items() if not codec.lossless])
def test_failing_closed_names_the_place(name, tmp_path):
    """The layer, head, token and tensor of the NaN, not the first of its group."""
    (tmp_path / "cache").write_bytes(capture_of((2, 1)))
    with pytest.raises(CodecError) as refusal:
        packed(tmp_path, name, 3, fallback=Fallback.FAIL_CLOSED)
    assert 'tensor "layers.2.key", key, batch 0, layer 2, head 1, token 5' in str(refusal.value)


@every_codec
@several
def test_batches_and_threads_change_no_byte(name, count, made, monkeypatch):
    """Pages in jobs of their own, on three threads, give the same container and file."""
    expected = packed(made, name, count).read_bytes(), restored(packed(made, name, count))
    for module in (audited, encode):
        monkeypatch.setattr(module, "BATCH", 1)
    monkeypatch.setattr(pages, "STACK", 1)
    box = made / "alone.kvq"
    pipeline.compress(made / "cache", box, profiles=[profile_of(name, count)], threads=3,
                      force=True)  # fmt: skip
    assert (box.read_bytes(), restored(box)) == expected


@every_codec
@several
def test_recovering(name, count, made, tmp_path):
    """Torn behind any chunk: whole pages come back, what is lost is told layer by layer."""
    box = packed(made, name, count)
    data, whole = box.read_bytes(), restored(box)
    offsets = [page["offset"] for page in pipeline.inspect(box, pages=True).found["pages"]]
    for cut in offsets[3::17]:
        (tmp_path / "torn").write_bytes(data[:cut])
        told = pipeline.recover(tmp_path / "torn", tmp_path / "left.kvq", threads=1, force=True)
        assert told.pages == sum(offset < cut for offset in offsets)
        assert pipeline.verify(tmp_path / "left.kvq", partial=True).broken == ()
        back = restored(tmp_path / "left.kvq", partial=pipeline.Fill.ZERO)
        assert read(tmp_path / "left.kvq").source() == back
        other = np.frombuffer(back, np.uint8) != np.frombuffer(whole, np.uint8)
        assert 0 < other.sum() <= told.lost_row_bytes
        nan = restored(tmp_path / "left.kvq", partial=pipeline.Fill.NAN)
        assert nan.count(b"\x00\x7e") >= told.lost_row_bytes // 2
