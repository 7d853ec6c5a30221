"""own_basis: a calibration made of the very capture that is compressed.

Spec: formats/transform.md, section "A basis of one's own".

Eigenvectors come from a library, so two machines may make two containers of one capture; each
decodes alike everywhere, for it holds what was made.
"""

from __future__ import annotations

from blake3 import blake3

from kvq_cli.capture import Capture
from kvq_cli.capture.queries import find_queries
from kvq_cli.digest import text
from kvq_cli.steps.calibrated_file import file_parts
from kvq_cli.steps.given import Given
from kvq_cli.steps.kvqcal import Kvqcal
from kvq_cli.steps.transformed import Setting, make
from kvq_cli.steps.work import Progress


def own_calibration(capture: Capture, threads: int, progress: Progress) -> Kvqcal:
    """What `kvq calibrate` would make of this capture alone."""
    given, setting = [Given(capture, find_queries(capture.source))], Setting()
    made = make(given, setting, threads, progress)
    table = made.basis.to_bytes()
    header, data = file_parts(made, table, given, setting)
    hasher = blake3(header.raw)
    for part in data:
        hasher.update(part)
    forward = tuple(each.forward for each in made.groups)
    return Kvqcal(text(hasher.digest()), header.metadata, table, made.basis, forward)
