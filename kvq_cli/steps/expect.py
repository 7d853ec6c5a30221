"""expect: what a container is held against: profile, shape, identity, roots, size, its capture.

A broken expectation is not damage: the file is intact. All of them are found, not the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from kvq_cli.container.footer import Footer
from kvq_cli.container.manifest import Manifest
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.digest import PREFIX, text
from kvq_cli.errors import ExpectationError
from kvq_cli.profile import Profile
from kvq_cli.record import record
from kvq_cli.steps.chain import Link, check_follows, read_link
from kvq_cli.steps.choose import named_profile
from kvq_cli.steps.comparison import MOST, Broken, broken
from kvq_cli.steps.facts import load_shape
from kvq_cli.steps.identity import difference
from kvq_cli.steps.referred import calibration_digest
from kvq_cli.words import Role


@record
class Expected:
    """What the caller expects; None is no expectation."""

    profiles: Sequence[str | Path | Profile] = ()
    shapes: Sequence[str | Path] = ()
    content_root: str | None = None
    file_root: str | None = None
    min_ratio: float | None = None
    max_bytes: int | None = None
    calibration: str | Path | None = None
    continues: str | Path | None = None
    identity: Mapping[str, str] = field(default_factory=dict)


def find_broken(manifest: Manifest, end: Footer, expected: Expected) -> Iterator[Broken]:
    """Each expectation that does not hold."""
    for source in expected.profiles:
        yield from _profile(manifest, source)
    for path in expected.shapes:
        yield from _shape(manifest, load_shape(Path(path)))
    if differs := difference(manifest, expected.identity):
        yield broken("E809", differs)
    for word, wanted, found in (
        ("content_root", expected.content_root, end.content_root),
        ("file_root", expected.file_root, end.file_root),
    ):
        if wanted is not None and wanted.removeprefix(PREFIX).lower() != found.hex():
            yield broken("E803", f"{word} is {text(found)}, expected {wanted}")
    if expected.calibration is not None:
        wanted, named = calibration_digest(expected.calibration), manifest.calibration_digest
        if named != wanted:
            yield broken("E807", f"calibration is {named or 'none'}, expected {wanted}")
    if expected.continues is not None:
        yield from _continues(manifest, expected.continues)
    yield from _size(manifest, end.file_length, expected)


def _size(manifest: Manifest, size: int, expected: Expected) -> Iterator[Broken]:
    if expected.max_bytes is not None and size > expected.max_bytes:
        yield broken("E804", f"{size} bytes, at most {expected.max_bytes} expected")
    ratio = manifest.source_bytes / size
    if expected.min_ratio is not None and ratio < expected.min_ratio:
        yield broken("E804", f"ratio {ratio:.4f} vs source, at least {expected.min_ratio} expected")


def _continues(manifest: Manifest, path: str | Path) -> Iterator[Broken]:
    try:
        check_follows(read_link(path), Link(Path(), manifest, ""))
    except ExpectationError as error:
        yield broken(error.error_id, str(error))


def _profile(manifest: Manifest, source: str | Path | Profile) -> Iterator[Broken]:
    profile = named_profile(source)
    digest = profile.digest()
    if isinstance(profile, Profile):
        wanted, recorded = profile.content_json(), list(manifest.profiles)
    else:
        role = Role[profile.role_policy.name].word
        wanted = profile.to_json()
        recorded = [each for each in manifest.profiles if role in each["roles"]]
    for each in recorded:
        if each["digest"] != digest:
            fields = ", ".join(list(_differences(wanted, each["profile"], ""))[:MOST])
            yield broken(
                "E801", f"profile is {each['digest']}, expected {digest}; differs in {fields}"
            )


def _differences(wanted: Any, found: Any, pointer: str) -> Iterator[str]:
    """JSON pointers of members that differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            if key not in wanted or key not in found:
                yield f"{pointer}/{key}"
            else:
                yield from _differences(wanted[key], found[key], f"{pointer}/{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for at, pair in enumerate(zip(wanted, found, strict=True)):
            yield from _differences(*pair, f"{pointer}/{at}")
    elif wanted != found:
        yield pointer or "/"


def _shape(manifest: Manifest, wanted: KvTensorShapeV1) -> Iterator[Broken]:
    role = Role[wanted.role.name]
    shapes = [part.roles[role] for part in manifest.parts if role in part.roles]
    if any(shape.shape_digest == wanted.digest() for shape in shapes):
        return
    for shape in shapes:
        expected = wanted.to_json()
        fields = [name for name in expected if shape.shape.get(name) != expected[name]]
        told = [f"{name}: {shape.shape.get(name)}, expected {expected[name]}" for name in fields]
        digest = shape.shape_digest or "not told in full"
        yield broken("E802", f"shape is {digest}, expected {wanted.digest()}; {'; '.join(told)}")
    if not shapes:
        yield broken("E802", f"no {role.word}s, expected shape {wanted.digest()}")
