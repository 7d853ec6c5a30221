"""fp8_e5m2: the cases of fp8.py for E5M2."""

from __future__ import annotations

from codec_vectors import fp8
from codec_vectors.recipe import Group

from kvq_cli.numerics.fp8 import E5M2

NOTES, REFUSED = fp8.NOTES, fp8.REFUSED


def groups() -> list[Group]:
    return fp8.groups(E5M2)
