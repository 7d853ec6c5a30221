"""pages: many pages of one kind in one call are what each is alone, refusals included."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.errors import KvqError
from kvq_cli.pipeline import compress, decompress, verify
from kvq_cli.profile import parse_profile
from kvq_cli.steps import audited, encode, pages
from support import surgery
from support.captures import canonical_capture

PROFILES = {
    name: parse_profile(
        {
            "schema": "kvq_profile_v1",
            "name": name,
            "page_tokens": 8,
            "rules": [{"tokens": [[24, 32]], "codec": "raw"}, {"codec": codec}],
            "storage": {"entropy": entropy},
        }
    )
    for name, codec, entropy in (
        ("int8", {"name": "int8", "axis": "token"}, "none"),
        ("lossless", "lossless", "zstd"),
    )
}


@pytest.fixture(scope="module", params=list(PROFILES))
def folder(request, tmp_path_factory):
    """A capture with a partial last page, and its container."""
    folder = tmp_path_factory.mktemp(request.param)
    capture = canonical_capture(layers=2, heads=2, tokens=61, channels=16)
    (folder / "cache").write_bytes(capture)
    compress(folder / "cache", folder / "box", profiles=[PROFILES[request.param]], threads=1)
    return folder


def alone(patch):
    """Every page in a job and a call of its own."""
    patch.setattr(audited, "BATCH", 1)
    patch.setattr(encode, "BATCH", 1)
    patch.setattr(pages, "STACK", 1)


def told(path, folder, threads):
    """What verify and decompress say of a damaged container."""
    words = []
    for story in (
        lambda: verify(path, threads=threads),
        lambda: decompress(path, folder / "restored", threads=threads, force=True),
    ):
        with pytest.raises(KvqError) as refusal:
            story()
        words.append((type(refusal.value), refusal.value.error_id, str(refusal.value)))
    return words


def test_together_and_alone(folder, monkeypatch, tmp_path):
    """Containers and restored files have the same bytes, however pages are batched."""
    decompress(folder / "box", tmp_path / "together", threads=2)
    alone(monkeypatch)
    profile = PROFILES[folder.name[:-1]]
    compress(folder / "cache", tmp_path / "box", profiles=[profile], threads=2)
    decompress(folder / "box", tmp_path / "alone", threads=2)
    assert (tmp_path / "box").read_bytes() == (folder / "box").read_bytes()
    assert (tmp_path / "together").read_bytes() == (tmp_path / "alone").read_bytes()


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_flipped_bit_is_told_as_if_pages_were_alone(folder, data):
    """The same error for the same chunk, on one thread or two."""
    box = bytearray((folder / "box").read_bytes())
    at = data.draw(st.integers(0, len(box) - 1))
    box[at] ^= 1 << data.draw(st.integers(0, 7))
    path = folder / "damaged"
    path.write_bytes(box)
    together = [told(path, folder, threads) for threads in (1, 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "STACK", 1)
        patch.setattr(audited, "_opened", one_by_one(audited._opened))
        assert together == [told(path, folder, 1)] * 2


def one_by_one(opened):
    def each_alone(batch, opener, visitor):
        return [seen for each in batch for seen in opened([each], opener, visitor)]

    return each_alone


@pytest.mark.parametrize("folder", ["int8"], indirect=True)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("number", [1, 2, 7, 8, 14])
def test_one_page_that_no_encoder_writes(folder, number, threads, tmp_path):
    """Digests hold and one code is -128: refused, wherever in a stack it lies."""
    body = copy.deepcopy(surgery.take_apart((folder / "box").read_bytes()))
    page = body["chunks"][number]
    if page["record"]["codec"] != body["chunks"][1]["record"]["codec"]:
        pytest.skip("a raw page holds any bits")
    codes = page["planes"][1]["bytes"]
    page["planes"][1]["bytes"] = codes[:10] + "80" + codes[12:]
    path = tmp_path / "lie"
    path.write_bytes(surgery.put_together(body))
    assert [error_id for _, error_id, _ in told(path, tmp_path, threads)] == ["E502", "E502"]


@pytest.mark.parametrize("threads", [1, 2])
def test_refused_heads_stand_in_page_order(threads, monkeypatch, tmp_path):
    """One head of the first of two head sets holds a NaN: its page goes behind the second set's."""
    rules = [{"heads": [[0, 2]], "codec": "int8"}, {"codec": "turboquant_mse"}]
    value = {"schema": "kvq_profile_v1", "name": "p", "page_tokens": 16, "rules": rules}
    capture = bytearray(canonical_capture(layers=1, heads=4, tokens=40, channels=32))
    at = 8 + int.from_bytes(capture[:8], "little")
    capture[at : at + 2] = b"\x01\x7e"
    (tmp_path / "cache").write_bytes(capture)
    boxes = [tmp_path / name for name in ("together", "alone")]
    for box in boxes:
        compress(tmp_path / "cache", box, profiles=[parse_profile(value)], threads=threads)
        verify(box, against=tmp_path / "cache")
        alone(monkeypatch)
    assert boxes[0].read_bytes() == boxes[1].read_bytes()
