"""identity: what a container says of its cache, and where that is not the expected one.

Spec: formats/report.md, section "Expectations".

    model, tokenizer, rope_theta, ...      the container's identity
    layout, layers, batch, kv_heads, ...   its header; different values of parts joined by commas

Values are text and compared as text, but for the case of dtypes. A container that does not say
is not the expected one: the wrong cache must not be taken for the right one in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from kvq_cli.capture.facts import IDENTITY
from kvq_cli.capture.header import shown
from kvq_cli.container.manifest import Manifest
from kvq_cli.errors import ExpectationError, UsageError
from kvq_cli.words import Role

DTYPES: Final = ("dtype", "key.dtype", "value.dtype")
GEOMETRY: Final = (
    "layout",
    "layers",
    "batch",
    "kv_heads",
    "tokens",
    "head_dim",
    "key.head_dim",
    "value.head_dim",
    *DTYPES,
)
KEYS: Final = (*IDENTITY, *GEOMETRY)


def check_keys(wanted: Mapping[str, str]) -> None:
    """UsageError for a key that no container could ever have."""
    for key in wanted:
        if key not in KEYS:
            known = ", ".join(KEYS)
            raise UsageError("E101", f"--expect {shown(key)} is unknown; known keys: {known}")


def said(manifest: Manifest) -> dict[str, str]:
    """What the container says under each of KEYS; a key that is not there is not said."""
    parts = manifest.parts
    found = {
        **{key: manifest.identity.get(key, "") for key in IDENTITY},
        "layout": manifest.layout,
        "layers": str(len(manifest.parts_by_layer())),
        "batch": _joined(part.batch for part in parts),
        "kv_heads": _joined(part.kv_heads for part in parts),
        "tokens": _joined(part.tokens for part in parts),
    }
    shapes = {role: [part.roles[role] for part in parts if role in part.roles] for role in Role}
    groups = {"": [each for role in Role for each in shapes[role]]}
    groups |= {f"{role.word}.": shapes[role] for role in Role}
    for prefix, group in groups.items():
        found[f"{prefix}head_dim"] = _joined(each.head_dim for each in group)
        found[f"{prefix}dtype"] = _joined(each.dtype.lower() for each in group)
    return {key: text for key, text in found.items() if text}


def difference(manifest: Manifest, wanted: Mapping[str, str]) -> str | None:
    """The first field that differs, in the order asked, and the names of the others."""
    found = said(manifest)
    differing = [key for key, text in wanted.items() if found.get(key) != _plain(key, text)]
    if not differing:
        return None
    key, *others = differing
    says = f'says "{shown(found[key])}"' if key in found else "does not say"
    more = f"; also different: {', '.join(others)}" if others else ""
    return f'expected {key}="{shown(wanted[key])}", container {says}{more}'


def check_identity(manifest: Manifest, wanted: Mapping[str, str]) -> None:
    """ExpectationError E809 where the container is not the expected one."""
    if message := difference(manifest, wanted):
        raise ExpectationError("E809", message)


def _plain(key: str, text: str) -> str:
    return text.lower() if key in DTYPES else text


def _joined(values: Iterable[object]) -> str:
    """Each different value once, in order."""
    return ",".join(dict.fromkeys(map(str, values)))
