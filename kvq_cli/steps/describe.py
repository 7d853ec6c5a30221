"""describe: what a file is, from its first bytes and its headers.

Spec: formats/report.md, section "inspect". Page data is not read, and NumPy is not needed for
a container.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kvq_cli.container.index import NO_DIGEST, PageEntry
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.preamble import MAGIC
from kvq_cli.container.reader import Reader
from kvq_cli.container.source import ByteSource
from kvq_cli.digest import plain, text
from kvq_cli.errors import CaptureError, FileError, UsageError, reason
from kvq_cli.record import record

PEEK: Final = 64
INDEX: Final = ".index.json"  # that of the shards of a capture
WHITE: Final = b" \t\r\n"
MARK: Final = b'"schema":"kvq_transform_v1"'  # as a calibration's metadata has it
METADATA_ROOM: Final = 1 << 20


@record
class InspectReport:
    """`kind` says which members there are; formats/report.md lists them."""

    path: str
    kind: str
    found: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "kind": self.kind, **self.found}


def kind_of(path: Path) -> str:
    """container, profile, transform or capture; a capture where nothing else fits."""
    if path == Path("-"):
        return "container"
    if path.is_dir() or path.name.endswith(INDEX):
        return "capture"
    try:
        if not path.is_file() and path.exists():
            raise FileError("E601", f"{path}: not a regular file, which is read more than once")
        with path.open("rb") as file:
            start = file.read(PEEK)
    except OSError as error:
        raise FileError("E601", f"{path}: {reason(error)}") from error
    if start[:4] == MAGIC[:4]:
        return "container"
    # A safetensors file begins with a length, which may look like white space and a brace; its
    # upper bytes are zero, which JSON text never holds.
    text = start.lstrip(WHITE)[:1] == b"{" and b"\0" not in start[:8]
    if text:
        return "profile"
    return "transform" if MARK in _header_start(path) else "capture"


def _header_start(path: Path) -> bytes:
    """So much of a safetensors file's header that its metadata, which comes first, is in it."""
    with path.open("rb") as file:
        return file.read(METADATA_ROOM)


def inspect(
    source: str | Path,
    *,
    pages: bool = False,
    tensors: bool = False,
    meta: Mapping[str, str] | None = None,
    layout: str | None = None,
) -> InspectReport:
    """What a file is: a container, a capture or a profile. Page data is not read."""
    path = Path(source)
    kind = kind_of(path)
    if kind != "capture" and (meta or layout):
        raise UsageError("E101", f"--layout and --meta are for captures, {path} is a {kind}")
    if kind == "container":
        found = _container(path, pages=pages, tensors=tensors)
    elif kind == "transform":
        found = _transform(path)
    elif kind == "profile":
        return _layout_map(path) or describe_profile(path)
    else:
        found = _capture(path, meta or {}, layout, tensors=tensors)
    return InspectReport(str(path), kind, found)


def _container(path: Path, *, pages: bool, tensors: bool) -> dict[str, Any]:
    if path == Path("-"):
        raise UsageError("E101", "inspect reads an index, which a pipe has last; use verify -")
    with ByteSource.open(path) as source:
        reader = Reader(source)
        end = reader.footer()
        manifest = reader.manifest
        entries = list(reader.entries()) if pages else None
        return {
            "format": "kvq container 1.0",
            "file_bytes": end.file_length,
            "source_bytes": manifest.source_bytes,
            "ratio": round(manifest.source_bytes / end.file_length, 4),
            "content_root": text(end.content_root),
            "file_root": text(end.file_root),
            "chunks": end.chunks,
            "page_count": end.pages,
            "layout": manifest.layout,
            "identity": manifest.identity,
            "token_offset": manifest.token_offset,
            "continues": manifest.continues,
            "calibration_digest": manifest.calibration_digest,
            "partial": _partial(reader),
            "parts": [part.to_json() for part in manifest.parts],
            "profiles": list(manifest.profiles),
            "codecs": list(manifest.codecs),
            "tables": [table.to_json() for table in manifest.tables],
            "storage": manifest.storage(),
            "raw_reasons": _reasons(entries if entries is not None else reader.entries()),
            **({"tensors": [each.to_json() for each in manifest.tensors]} if tensors else {}),
            **(
                {"pages": [_page(each, manifest) for each in entries]}
                if entries is not None
                else {}
            ),
        }


def _transform(path: Path) -> dict[str, Any]:
    """What a calibration of the codec transform is for."""
    from kvq_cli.steps.kvqcal import SCHEMA, load_kvqcal

    found = load_kvqcal(path)
    return {
        "format": SCHEMA,
        "digest": found.digest,
        "file_bytes": path.stat().st_size,
        "basis_digest": text(plain(found.table)),
        "basis_bytes": len(found.table),
        "metadata": {key: each for key, each in found.metadata.items() if key != "schema"},
        "groups": [
            {
                "role": each.role.word,
                "first_layer": each.first,
                "layers": each.layers,
                "dimensions": each.dimensions,
                "rank": each.rank,
            }
            for each in found.basis.groups
        ],
    }


def _partial(reader: Reader) -> dict[str, Any] | None:
    """What a partial container was, and what it lacks."""
    manifest = reader.manifest
    if manifest.partial is None:
        return None
    from kvq_cli.steps.lost import lost_of

    told = manifest.partial
    return {
        "header_digest": told.header_digest,
        "content_root": told.content_root,
        "lost": lost_of(manifest, reader.gaps()).to_json(),
        "unknown_sources": sum(each.source_digest == NO_DIGEST for each in reader.entries()),
    }


def _reasons(entries: Any) -> dict[str, int]:
    """How many pages are raw, and why."""
    counts: dict[str, int] = {}
    for entry in entries:
        if entry.record.reason:
            word = entry.record.reason.word
            counts[word] = counts.get(word, 0) + 1
    return counts


def _page(entry: PageEntry, manifest: Manifest) -> dict[str, Any]:
    key = entry.record.key
    return {
        "role": key.role.word,
        "batch": key.batch,
        "layer": key.layer,
        "layers": key.layers,
        "tokens": [key.start, key.stop],
        "heads": list(manifest.head_sets[key.head_set]),
        "codec": manifest.codecs[entry.record.codec]["name"],
        "reason": entry.record.reason.word,
        "offset": entry.offset,
        "stored": entry.stored,
        "packed": entry.packed,
        "packed_digest": text(entry.packed_digest),
        "source_digest": text(entry.source_digest),
    }


def describe_profile(source: str | Path) -> InspectReport:
    """A built-in profile by name, or a profile, shape or other object of the contract."""
    from kvq_cli.profile import load_object

    return described(source, load_object(source))


def described(source: str | Path, found: Any) -> InspectReport:
    """What there is to tell of an object that was read from `source`."""
    from kvq_cli.profile import SCHEMA, Calibration, Profile

    if isinstance(found, Calibration):
        told = found.to_json()
        members = {"format": told["schema"], "digest": found.digest(), "calibration": told}
        return InspectReport(str(source), "calibration", members)
    schema = SCHEMA if isinstance(found, Profile) else found.schema_version
    members = {"format": schema, "digest": found.digest(), "profile": found.to_json()}
    return InspectReport(str(source), "profile", members)


def _layout_map(path: Path) -> InspectReport | None:
    """What a layout map says, checked; None for another JSON object."""
    from kvq_cli.capture.layout_map import SCHEMA, load_map, read_json

    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        return None
    load_map(path)
    return InspectReport(str(path), "layout_map", {"format": SCHEMA, "layout_map": value})


def _capture(
    path: Path, meta: Mapping[str, str], layout: str | None, *, tensors: bool
) -> dict[str, Any]:
    from kvq_cli.capture import check_headers, open_source
    from kvq_cli.steps.facts import part_shapes
    from kvq_cli.steps.inputs import told_capture
    from kvq_cli.words import spans

    with open_source(path) as source:
        files = source.files
        check_headers(files)
        listed = [
            {"name": files.label(each), "dtype": each.dtype, "shape": list(each.shape)}
            for each in files.tensors
        ]
        common = {
            "format": "safetensors",
            "file_bytes": files.size,
            "metadata": dict(files.metadata),
            **({"files": [file.name for file in files.files]} if files.folder else {}),
        }
        try:
            capture = told_capture(source, layout, meta)
        except CaptureError as error:
            if error.error_id == "E209":
                raise
            return {**common, "layout": None, "notes": [str(error)], "tensors": listed}
        parts = [
            {
                "layers": [list(span) for span in spans(part.layers)],
                **{role.word: part.shape_json(role, capture.facts) for role in part.roles},
            }
            for part in part_shapes(capture.layers)
        ]
        return {
            **common,
            "layout": capture.layout,
            "doubt": capture.doubt,
            "identity": dict(capture.identity),
            "parts": parts,
            "other_tensors": [files.label(each) for each in capture.others],
            "notes": list(capture.notes),
            **({"tensors": listed} if tensors else {}),
        }
