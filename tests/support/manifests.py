"""manifests: headers of container vectors with members changed, and read by kvq alone."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

from kvq_cli.container.consistency import check_manifest
from kvq_cli.container.header import read_manifest
from kvq_cli.container.manifest import Manifest
from support.surgery import canonical, take_apart

VALID = Path(__file__).parents[2] / "formats" / "vectors" / "container" / "valid"


def container_of(name: str) -> bytes:
    return base64.b64decode(json.loads((VALID / f"{name}.json").read_text())["container"])


def header_of(name: str) -> dict[str, Any]:
    """The header of a valid vector."""
    header: dict[str, Any] = take_apart(container_of(name))["header"]
    return header


def changed(header: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A copy with other members; a name is the way to one, `parts__0__key__head_dim`.

    `...` takes a member away.
    """
    copied = copy.deepcopy(header)
    for way, value in members.items():
        holder: Any = copied if way.startswith("storage__") else copied["content"]
        *steps, last = [int(step) if step.isdigit() else step for step in way.split("__")]
        for step in steps:
            holder = holder[step]
        if value is ...:
            del holder[last]
        elif isinstance(holder, list) and last == len(holder):
            holder.append(value)
        else:
            holder[last] = value
    return copied


def read(header: dict[str, Any], alignment: int | None = None) -> Manifest:
    """Each member by itself."""
    stated: int = header["storage"]["alignment"]
    features = ("partial" in header["content"]) + 2 * ("referenced" in header["storage"])
    text = canonical(header)
    return read_manifest(text, stated if alignment is None else alignment, features)


def checked(header: dict[str, Any]) -> Manifest:
    """Members by themselves, and what they say of each other."""
    manifest = read(header)
    check_manifest(manifest)
    return manifest
