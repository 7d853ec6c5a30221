"""result: the file of results, benchmarks/results.json, part by part.

    {
     "schema": "kvq_bench_v1",
     "codecs":   {"made": M, "rows": [C, …], "transform": [T, …]}
     "commands": {"made": M, "captures": [{"bytes", "layers", "heads", "channels",
                    "times": [{"command", "median_s", "least_s", "cpu_s", "source_mb_s",
                               "peak_mb"}],
                    "ratios": [{"command", "rival", "wall"}],
                    "sizes": [{"file", "bytes", "of_source"}]}, …]}
     "threads":  {"made": M, "captures": [{"bytes", "layers", "heads", "channels",
                    "rows": [{"command", "t1_s", "t2_s", "side_s", "threads", "processes",
                              "reached"}]}, …]}
     "peers":    {"made": M, "captures": [{"capture", "digest", "dtype", "blocks": [N, T, D],
                    "versions": {package: version}, "rows": [P, …],
                    "failed": [{"name", "why"}], "violations": [V, …]}, …]}
    }

M   command, date, processor, processors, system, python, packages, zstd, load: each part's own,
    so that one part can be measured anew
C   codec, channels, dtype, threads, bits (of an element, scales and all), cast_ns, copy_ns; and
    for encode_ and decode_: ns, least_ns (of an element), mb_s (megabytes of source), per_cast,
    per_copy, and with one thread hot_per_cast
T   codec, role, dimensions (of a group), tokens (of a page), step, bits, and the rest as in C, of
    one thread; see transform_speed.py
P   name, kind (kvq, peer, bound), role, threads, bits, held_bits, relative_mse, note, cast_ns;
    for encode_ and decode_: mb_s, least_ns, per_cast, jobs (what suited the method best)
V   peer, role, threads, way, peer_per_cast, kvq, kvq_per_cast (null where kvq has no row of as
    few bits and as small an error)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

SCHEMA: Final = "kvq_bench_v1"
PARTS: Final = ("codecs", "commands", "threads", "peers")
PATH: Final = Path(__file__).with_name("results.json")


def merge(path: Path, parts: dict[str, Any]) -> None:
    """Put these parts in place of the ones in the file; the others stay."""
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    merged = {"schema": SCHEMA}
    merged |= {name: {**known, **parts}[name] for name in PARTS if name in {**known, **parts}}
    path.write_text(compact(merged), "utf-8")


def compact(value: Any, indent: str = "") -> str:
    """JSON with one row a line: short, and a new run shows as lines that differ."""
    inner = indent + " "
    if isinstance(value, dict) and any(isinstance(each, (dict, list)) for each in value.values()):
        parts = [f"{inner}{json.dumps(k)}: {compact(v, inner)}" for k, v in value.items()]
        text = "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        parts = [inner + compact(each, inner) for each in value]
        text = "[\n" + ",\n".join(parts) + f"\n{indent}]"
    else:
        text = json.dumps(value)
    return text if indent else text + "\n"
