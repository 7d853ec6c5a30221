"""scope: which modules are mutated, in which area, and which tests must notice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Area:
    """Modules that do one thing for a user's trust, and the tests that hold them."""

    about: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


AREAS: Final = {
    "digest": Area(
        "digests and the JSON that they are taken over",
        ("digest", "jsontext", "contract/numbers"),
        (
            "tests/unit/test_digest.py",
            "tests/unit/test_jsontext.py",
            "tests/unit/contract/test_numbers.py",
            "tests/unit/contract/test_fields.py",
            "tests/unit/profile/test_parse.py",
            "tests/unit/capture/test_header.py",
            "tests/vectors/test_contract_vectors.py",
            "tests/vectors/test_profile_vectors.py",
        ),
    ),
    "guard": Area(
        "what reads headers of captures, and members of JSON",
        ("capture/header", "capture/gatekeeper", "contract/fields"),
        (
            "tests/unit/capture/test_header.py",
            "tests/unit/capture/test_gatekeeper.py",
            "tests/unit/contract",
            "tests/unit/profile/test_parse.py",
            "tests/vectors/test_contract_vectors.py",
            "tests/vectors/test_profile_vectors.py",
        ),
    ),
    "profile": Area(
        "profiles, and which codec they choose",
        tuple(
            f"profile/{name}"
            for name in ("calibration", "caution", "model", "parse", "policy", "ranges")
        ),
        (
            "tests/unit/profile/test_calibration.py",
            "tests/unit/profile/test_caution.py",
            "tests/unit/profile/test_limits.py",
            "tests/unit/profile/test_parse.py",
            "tests/unit/profile/test_policy.py",
            "tests/vectors/test_profile_vectors.py",
        ),
    ),
    "reader": Area(
        "what reads containers, and refuses those that are wrong",
        tuple(
            f"container/{name}"
            for name in (
                "audit",
                "chunk",
                "coded",
                "consistency",
                "coverage",
                "entropy",
                "footer",
                "header",
                "index",
                "interleave",
                "manifest",
                "partial",
                "preamble",
                "reader",
                "records",
                "source",
                "tensors",
            )
        ),
        (
            "tests/unit/container",
            "tests/vectors/test_container_vectors.py",
            "tests/vectors/test_recovered_vectors.py",
        ),
    ),
}


def file_of(module: str) -> Path:
    return ROOT / "kvq_cli" / f"{module}.py"


def name_of(module: str) -> str:
    """The module as Python imports it."""
    return f"kvq_cli.{module.replace('/', '.')}"


def area_of(module: str) -> str:
    return next(name for name, area in AREAS.items() if module in area.modules)
