"""Tables of codecs: planned, written, read before the first page."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from kvq_cli import open_container, pipeline
from kvq_cli.codecs import registry
from kvq_cli.codecs.raw import Raw
from kvq_cli.errors import ContainerError, DigestError, ProfileError
from kvq_cli.page import Role
from kvq_cli.planes import table_spec
from kvq_cli.profile import Profile, Rule
from kvq_cli.record import record
from kvq_cli.words import TableSpec
from support.captures import canonical_capture
from support.surgery import put_together, take_apart

TABLES = (np.arange(3, dtype="<f8"), np.ones((3, 1 << 20), "<u2"), np.zeros((1, 2), "|u1"))
SPECS = tuple(map(table_spec, TABLES))


@record
class Tabled(Raw):
    """raw, which looks its tables up and does nothing with them."""

    name: ClassVar[str] = "tabled"
    lossless: ClassVar[bool] = False

    def tables(self):
        return SPECS

    def encode(self, page, scratch):
        self.look_up(scratch)
        return Raw.encode(self, page, scratch)

    def decode(self, planes, spec, into, scratch):
        self.look_up(scratch)
        Raw.decode(self, planes, spec, into, scratch)

    @staticmethod
    def look_up(scratch):
        for spec, table in zip(SPECS, TABLES, strict=True):
            assert np.array_equal(scratch.tables[spec.digest], table)


PROFILE = Profile(
    "tabled",
    (Rule(Tabled()),),
    fixed_rate=True,
    tables={spec.digest: table for spec, table in zip(SPECS, TABLES, strict=True)},
)


@pytest.fixture(autouse=True)
def codecs(monkeypatch):
    """The registry has the codec of this test."""
    known = {**registry.CODECS, ("tabled", 1): Tabled}
    monkeypatch.setattr(registry, "CODECS", known)


@pytest.fixture
def paths(tmp_path):
    source, box = tmp_path / "capture", tmp_path / "box"
    source.write_bytes(canonical_capture(tokens=20))
    return source, box, tmp_path / "back"


def test_a_table_is_what_its_bytes_are():
    """dtype and shape are NumPy's, the digest is of the bytes alone."""
    assert (SPECS[0].dtype, SPECS[0].shape, SPECS[0].nbytes) == ("<f8", (3,), 24)
    assert SPECS[1].nbytes == TABLES[1].nbytes
    assert table_spec(TABLES[1].reshape(-1)).digest == SPECS[1].digest


@pytest.mark.parametrize("threads", [1, 2])
def test_tables_reach_encoders_and_decoders(paths, threads):
    """Whole, sliced or by rows, in every worker, codecs find what the plan carried."""
    source, box, back = paths
    pipeline.compress(source, box, profiles=[PROFILE], threads=threads)
    pipeline.decompress(box, back, threads=threads)
    assert back.read_bytes() == source.read_bytes()
    chosen = pipeline.Selection(chosen_tokens=(slice(3, 7),))
    pipeline.decompress(box, back, selection=chosen, threads=threads, force=True)
    with open_container(box) as cache:
        assert cache.rows(Role.KEY, 0).shape[1] == 20
        assert cache.manifest.tables == SPECS
    assert pipeline.verify(box, quick=True).pages == pipeline.verify(box).pages


def test_tables_are_counted_and_shown(paths):
    """`stats` has them as a part of the file, `inspect` as the header has them."""
    source, box, _ = paths
    pipeline.compress(source, box, profiles=[PROFILE])
    report = pipeline.stats(box)
    assert sum(report.parts.values()) == report.file_bytes
    assert report.parts["tables"] > 4 * 64
    assert pipeline.inspect(box).to_json()["tables"] == [spec.to_json() for spec in SPECS]


def test_pieces_stand_before_pages(paths):
    """A table of 6 MiB takes two chunks, the others one, right behind HEAD."""
    source, box, _ = paths
    pipeline.compress(source, box, profiles=[PROFILE])
    chunks = take_apart(box.read_bytes())["chunks"]
    records = [one["record"] for one in chunks if one["type"] == "TABL"]
    assert [one["type"] for one in chunks[:6]] == ["HEAD", *["TABL"] * 4, "PAGE"]
    places = [(one["table"], one["offset"]) for one in records]
    assert places == [(0, 0), (1, 0), (1, 1 << 22), (2, 0)]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda body: body["chunks"].pop(1), ContainerError),
        (lambda _: None, None),
        (lambda body: body["chunks"].insert(1, body["chunks"].pop(2)), ContainerError),
        (lambda body: body["chunks"].insert(5, body["chunks"].pop(4)), ContainerError),
        (lambda body: body["chunks"].insert(2, body["chunks"][1]), ContainerError),
        (lambda body: body["chunks"].insert(1, {"type": "note", "payload": "00"}), None),
        (lambda body: body["chunks"][4]["planes"][0].update(entropy=0, bytes="0001"), DigestError),
        (lambda body: body["header"]["content"]["tables"].pop(), ContainerError),
    ],
    ids=["missing", "same", "order", "late", "twice", "ancillary", "bytes", "unnamed"],
)
def test_what_is_wrong_is_refused_on_every_way(paths, change, error):
    """Whoever decodes checks tables first; an ancillary chunk may stand between them."""
    source, box, back = paths
    pipeline.compress(source, box, profiles=[PROFILE])
    body = take_apart(box.read_bytes())
    change(body)
    box.write_bytes(put_together(body))
    chosen = pipeline.Selection(chosen_tokens=(0,))
    for story in (
        lambda: pipeline.verify(box),
        lambda: pipeline.decompress(box, back, selection=chosen, force=True),
        lambda: open_container(box).close(),
    ):
        if error is None:
            story()
        else:
            with pytest.raises(error):
                story()


def test_a_profile_that_brings_no_tables_is_refused(paths):
    """A codec that needs tables cannot be had by its name alone."""
    source, box, _ = paths
    with pytest.raises(ProfileError) as refusal:
        pipeline.compress(source, box, profiles=[replace(PROFILE, tables={})])
    assert refusal.value.error_id == "E403"
    assert not box.exists()


def test_tables_have_a_limit(paths, monkeypatch):
    """More than 64 MiB are refused before anything is written."""
    source, box, _ = paths
    large = TableSpec("|u1", ((1 << 26) + 1,), "blake3:" + "0" * 64)
    monkeypatch.setattr(Tabled, "tables", lambda _: (large,))
    with pytest.raises(ProfileError) as refusal:
        pipeline.compress(source, box, profiles=[replace(PROFILE, tables={large.digest: None})])
    assert refusal.value.error_id == "E404"
    assert not box.exists()
