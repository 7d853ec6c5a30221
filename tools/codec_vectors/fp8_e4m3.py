"""fp8_e4m3: the cases of fp8.py for E4M3."""

from __future__ import annotations

from codec_vectors import fp8
from codec_vectors.recipe import Group

from kvq_cli.numerics.fp8 import E4M3

NOTES, REFUSED = fp8.NOTES, fp8.REFUSED


def groups() -> list[Group]:
    return fp8.groups(E4M3)
