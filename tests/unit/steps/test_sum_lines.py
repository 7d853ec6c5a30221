"""Lines of content_root and name, for names of any letters."""

from __future__ import annotations

import os
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.cli.render import safe
from kvq_cli.cli.sums import read_sums, sum_line

ROOT = "blake3:" + "ab" * 32
# Names as os.fsdecode gives them: any text, and bytes that are no UTF-8.
NAMES = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\\\n\r\t x"), min_size=1
)
BYTES = st.binary(min_size=1).map(os.fsdecode)


@settings(deadline=None, max_examples=200)
@given(st.lists((NAMES | BYTES).filter(lambda name: "\0" not in name), min_size=1, max_size=4))
def test_there_and_back(names):
    """What inspect --sums writes, verify --check reads; every line is safe to print."""
    lines = [sum_line(ROOT, name) for name in names]
    assert all(safe(line) == line for line in lines)
    with tempfile.NamedTemporaryFile() as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
        file.flush()
        assert list(read_sums(file.name)) == [(name, ROOT) for name in names]
