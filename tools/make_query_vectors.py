"""make_query_vectors: the only writer of formats/vectors/capture/queries.json.

    python tools/make_query_vectors.py             write the file
    python tools/make_query_vectors.py --check     compare it with what would be written

A case is a recipe of a file of queries, for one capture, and its digest or the id of the error.
Digests are computed from the spec by the reference (tests/reference) and by kvq.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FILE = ROOT / "formats" / "vectors" / "capture" / "queries.json"
sys.path.insert(0, str(ROOT / "tests"))

from reference.queries import digest  # noqa: E402 - tests/ is no package

from kvq_cli.capture import open_capture  # noqa: E402
from kvq_cli.errors import KvqError  # noqa: E402
from kvq_cli.steps.probe import probe_of  # noqa: E402
from support.recipes import capture_bytes  # noqa: E402

SHAPE = [1, 2, 4, 3, 8]


def tensor(name: str, shape: list[int], dtype: str = "F16", **more: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, "paint": 7 * len(name), **more}


def positions(*numbers: int, dtype: str = "I64", shape: list[int] | None = None) -> dict[str, Any]:
    words = {str(at): f"{number % 2**64:016x}" for at, number in enumerate(numbers)}
    return tensor("positions", shape or [len(numbers)], dtype, bits=words)


def queries(
    *more: dict[str, Any], shape: list[int] | None = None, dtype: str = "F16", **metadata: str
) -> dict[str, Any]:
    """A file of `query` and what else is named."""
    told = {"metadata": metadata} if metadata else {}
    return {"tensors": [tensor("query", shape or SHAPE, dtype), *more], **told}


CAPTURE = {"tensors": [tensor("key", [1, 2, 2, 9, 8]), tensor("value", [1, 2, 2, 9, 8])]}
SEEN = positions(0, 4, 8)
CASES: dict[str, dict[str, Any]] = {
    "nothing but queries": queries(),
    "F32 without batch": queries(shape=SHAPE[1:], dtype="F32"),
    "BF16, as many heads as keys": queries(shape=[1, 2, 2, 3, 8], dtype="BF16"),
    "one query": queries(shape=[1, 2, 4, 1, 8]),
    "positions": queries(SEEN),
    "positions in any order, beyond the last token": queries(positions(2**40 - 1, 3, 3)),
    "positions that do not count": queries(SEEN, causal="false: all see all"),
    "positions that count": queries(SEEN, causal="true"),
    "a scale": queries(attention_scale="0.25"),
    "a scale that is no power of two": queries(SEEN, attention_scale="0.08838834764831845"),
    "a scale that is written as an integer": queries(attention_scale="1"),
    "a scale that nobody tells": queries(attention_scale=""),
    "rotary positions not in the queries yet": queries(SEEN, rope_state="pre"),
    "the same in other words": queries(SEEN, rope_state="pre_rope"),
    "rotary positions in the queries": queries(SEEN, rope_state="post"),
    "metadata that does not count": queries(SEEN, model="m", causal="yes"),
    "a tensor beside": queries(SEEN, tensor("other", [3], "U8")),
    "axes in other words": queries(shape=[2, 4, 3, 8], layout="layers,heads,tokens,head_dim"),
    "no query": {"tensors": [SEEN]},
    "another dtype": queries(dtype="F64"),
    "three dimensions": queries(shape=[4, 3, 8]),
    "no queries at all": queries(shape=[1, 2, 4, 0, 8]),
    "65,537 queries": queries(shape=[1, 2, 2, 65_537, 1]),
    "another number of layers": queries(shape=[1, 3, 4, 3, 8]),
    "fewer batch entries than asked for": {
        **queries(shape=[1, 2, 4, 3, 8]),
        "capture": {"tensors": [tensor("key", [2, 2, 2, 9, 8])]},
    },
    "heads that are no multiple": queries(shape=[1, 2, 3, 3, 8]),
    "another head_dim": queries(shape=[1, 2, 4, 3, 6]),
    "a capture without keys": {
        **queries(),
        "capture": {"tensors": [tensor("value", [1, 2, 2, 9, 8])]},
    },
    "positions of another number": queries(positions(0, 1)),
    "positions of I32": queries(tensor("positions", [3], "I32")),
    "positions in two dimensions": queries(positions(0, 1, 2, shape=[1, 3])),
    "a position below 0": queries(positions(0, -1, 2)),
    "a position of 2^40": queries(positions(0, 1, 2**40)),
    "a scale of 0": queries(attention_scale="0"),
    "a scale that is infinite": queries(attention_scale="inf"),
    "a scale that is no number": queries(attention_scale="half"),
}


def case(what: str, recipe: dict[str, Any]) -> dict[str, Any]:
    capture = recipe.get("capture", CAPTURE)
    made = {key: value for key, value in recipe.items() if key != "capture"}
    told = {"capture": capture} if "capture" in recipe else {}
    found: dict[str, Any] = {"what": what, **told, "queries": made}
    data = capture_bytes(made)
    with tempfile.TemporaryDirectory() as folder:
        cache, asked = (Path(folder) / name for name in ("cache", "asked"))
        cache.write_bytes(capture_bytes(capture))
        asked.write_bytes(data)
        try:
            with open_capture(cache) as opened, probe_of(opened, asked) as probe:
                assert probe is not None
                found["digest"] = probe.digest
        except KvqError as error:
            return {**found, "error": error.error_id, "exit": error.exit_code}
    if found["digest"] != digest(data):
        raise SystemExit(f"{what}: the two readers disagree")
    return found


def text() -> str:
    notes = {
        "capture": "recipe of the capture that the queries are for, unless a case has its own",
        "queries": "recipe of the file of queries; see ../container/README.md, section valid",
        "digest": "of the queries",
        "error": "the id that they are refused with, for this capture",
        "exit": "what kvq ends with then",
    }
    cases = ",\n".join("  " + json.dumps(case(what, recipe)) for what, recipe in CASES.items())
    return (
        '{\n"schema": "kvq_query_vectors_v1",\n"notes": '
        f'{json.dumps(notes)},\n"capture": {json.dumps(CAPTURE)},\n"cases": [\n{cases}\n]\n}}\n'
    )


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true")
    made = text()
    if not arguments.parse_args().check:
        FILE.write_text(made)
    elif not FILE.exists() or FILE.read_text() != made:
        print(f"{FILE.name} is not what the tool writes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
