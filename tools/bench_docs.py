"""bench_docs: tables of the documentation that follow from benchmarks/results.json.

make_docs puts them into README.md and docs/benchmarks.md; nothing is measured here. What the
members of the file mean stands in benchmarks/result.py. GB/s are of F16 source; "in A" is the time
as a multiple of that of `page.astype(np.float32)` in the same round.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any, Final, TypeAlias

RESULTS: Final = Path(__file__).parents[1] / "benchmarks" / "results.json"
WAYS: Final = ("encode", "decode")
# What the built-in profiles use; docs/benchmarks.md has the rest.
SHOWN: Final = (
    "lossless, zstd 1",
    "int8 token",
    "int8 channel",
    "int8 channel centred",
    "fp8_e4m3",
    "fp8_e4m3 centred",
    "fp8_e5m2",
    "int4 g64",
    "int4 g64 centred",
    "int4 g32",
    "kivi 4 channel",
    "kivi 4 token",
    "kivi 2 channel",
    "kivi 2 token",
)
# Peers are compared within these bounds of bits an element.
CLASSES: Final = ((9.0, 17.0), (6.0, 9.0), (3.5, 6.0), (0.0, 3.5))

Row: TypeAlias = Mapping[str, Any]


def load() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8"))
    return results


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def made(part: Row) -> str:
    """With what, when and how: under every table."""
    told = part["made"]
    packages = ", ".join(f"{name} {version}" for name, version in told["packages"].items())
    where = f"{told['processor']}, {told['processors']} processors, Python {told['python']}"
    return f"Measured {told['date'][:10]} on {where}, {packages}, by `{told['command']}`.\n"


def speed_block() -> str:
    """README: codecs and the fastest peers at their bits, then whole commands."""
    results = load()
    capture = results["peers"]["captures"][0]
    rows = both_roles(capture["rows"], 1)
    shown = [row for name in SHOWN for row in rows if row["name"] == name]
    parts = [markdown(METHOD, [method_line(row) for row in [*shown, *fastest(rows)]])]
    parts += [about(capture), violations_line(capture), made(results["peers"])]
    parts += [commands_table(results["commands"]["captures"][0]), made(results["commands"])]
    return "\n".join(parts)


METHOD: Final = [
    "method", "bits/element", "keys, relative MSE", "values, relative MSE",
    "encode, in A", "encode GB/s", "decode, in A", "decode GB/s",
]  # fmt: skip


def both_roles(rows: list[Row], threads: int) -> list[dict[str, Any]]:
    """One row a method: the mean of bits and of times over keys and values."""
    found = []
    for name in dict.fromkeys(row["name"] for row in rows):
        pair = {
            row["role"]: row for row in rows if row["name"] == name and row["threads"] == threads
        }
        if set(pair) != {"key", "value"}:
            continue
        row = {"name": name, "kind": pair["key"]["kind"], "note": pair["key"]["note"]}
        for member in ("bits", "held_bits", "encode_per_cast", "decode_per_cast"):
            row[member] = mean(each[member] for each in pair.values())
        for way in WAYS:
            row[f"{way}_gb_s"] = 2 / sum(1e3 / each[f"{way}_mb_s"] for each in pair.values())
        row |= {role: each["relative_mse"] for role, each in pair.items()}
        found.append(row)
    return found


def method_line(row: Row) -> list[str]:
    name = row["name"] if row["kind"] == "peer" else f"**{row['name']}**"
    if row["kind"] == "bound":
        name = row["name"]
    errors = [f"{row[role]:.1e}" if row[role] else "exact" for role in ("key", "value")]
    speeds = [f"{row[f'{way}_{unit}']:.2f}" for way in WAYS for unit in ("per_cast", "gb_s")]
    return [name, f"{row['bits']:.2f}", *errors, *speeds]


def fastest(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of the peers of each class of bits the fastest to encode and the fastest to decode."""
    for low, high in CLASSES:
        peers = [row for row in rows if row["kind"] == "peer" and low <= row["bits"] < high]
        best = [min(peers, key=per_cast(way)) for way in WAYS if peers]
        yield from {row["name"]: row for row in best}.values()


def per_cast(way: str) -> Callable[[Row], float]:
    return lambda row: float(row[f"{way}_per_cast"])


def about(capture: Row) -> str:
    count, tokens, channels = capture["blocks"]
    versions = ", ".join(f"{name} {version}" for name, version in capture["versions"].items())
    return (
        f"`{capture['capture']}`: {count} blocks of {tokens} tokens and {channels} channels for "
        f"keys and for values, as F16, one thread; bold is kvq. {versions}.\n"
    )


def violations_line(capture: Row) -> str:
    found = capture["violations"]
    if not found:
        return "No peer is faster than every codec of kvq that has its bits and its error.\n"
    return (
        f"In {len(found)} cases a peer is faster than every codec of kvq that has its bits and its "
        "error, or has no such codec against it: docs/benchmarks.md lists them.\n"
    )


def commands_table(capture: Row) -> str:
    """One line a profile: speed of its three commands, size, and wall time next to zstd -1."""
    speeds = {row["command"]: row["source_mb_s"] for row in capture["times"]}
    sizes = {row["file"]: row["of_source"] for row in capture["sizes"]}
    walls = {(row["command"], row["rival"]): row["wall"] for row in capture["ratios"]}
    lines = []
    for profile in [name.removeprefix("compress ") for name in speeds if name[:9] == "compress "]:
        told = [f"{speeds[f'{what} {profile}'] / 1e3:.2f}"
                for what in ("compress", "decompress", "verify")]  # fmt: skip
        rivals = [
            number(walls.get((f"compress {profile}", name))) for name in ("zstd -1", "zstd -3")
        ]
        size = number(sizes.get(f"{profile}.kvq"), 3)
        lines.append([f"`{profile}`", *told, size, *rivals])
    header = ["profile", "compress GB/s", "decompress GB/s", "verify GB/s", "size of source"]
    return (
        f"Whole commands on {described(capture)}, output on disk; "
        "wall time to compress next to `zstd -T2`:\n\n"
        + markdown([*header, "/ `zstd -1`", "/ `zstd -3`"], lines)
    )


def described(capture: Row) -> str:
    shape = ", ".join(f"{capture[name]} {name}" for name in ("layers", "heads", "channels"))
    return f"{capture['bytes'] >> 20} MiB of F16, {shape}"


def number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def plain(rows: list[Row]) -> str:
    """Every member of every row."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    told = [["" if row.get(name) is None else str(row[name]) for name in names] for row in rows]
    return markdown([name.replace("_", " ") for name in names], told)


def codecs_block() -> str:
    """A table for each dtype and number of threads: a line a codec, a column a head_dim."""
    part = load()["codecs"]
    rows = {
        (row["dtype"], row["threads"], row["codec"], row["channels"]): row for row in part["rows"]
    }
    kinds = list(dict.fromkeys(key[:2] for key in rows))
    parts = [made(part)]
    for dtype, threads in kinds:
        widths = sorted({key[3] for key in rows if key[:2] == (dtype, threads)})
        names = dict.fromkeys(key[2] for key in rows if key[:2] == (dtype, threads))
        lines = [[name, *(cell(rows[dtype, threads, name, width]) for width in widths)]
                 for name in names]  # fmt: skip
        title = f"### {dtype}, {threads} thread{'s' if threads > 1 else ''}\n"
        parts += [title, markdown(["codec", *(f"D = {width}" for width in widths)], lines)]
    return "\n".join(parts)


def cell(row: Row) -> str:
    """Encode / decode, in A, then in ns an element."""
    ratios = " / ".join(f"{row[f'{way}_per_cast']:.2f}" for way in WAYS)
    spent = " / ".join(f"{row[f'{way}_ns']:.2f}" for way in WAYS)
    return f"{ratios} ({spent} ns)"


def peers_block() -> str:
    """For each capture all methods with one thread and two, what failed, where peers win."""
    part = load()["peers"]
    parts = [made(part)]
    for capture in part["captures"]:
        parts.append(f"### {capture['capture']}\n\n{about(capture)}")
        for threads in (1, 2):
            rows = both_roles(capture["rows"], threads)
            lines = [[*method_line(row), f"{row['held_bits']:.2f}", row["note"]] for row in rows]
            header = [*METHOD, "bits held in memory", "note"]
            parts.append(f"Threads: {threads}\n\n{markdown(header, lines)}")
        for title, name in (("Failed", "failed"), ("Where a peer is faster", "violations")):
            told = plain(capture[name]) if capture[name] else "Nothing.\n"
            parts.append(f"#### {title}\n\n{told}")
    return "\n".join(parts)


def commands_block() -> str:
    """Times, ratios and sizes of whole commands."""
    part = load()["commands"]
    tables = [
        f"### {described(capture)}\n\n"
        + "\n".join(plain(capture[name]) for name in ("times", "ratios", "sizes"))
        for capture in part["captures"]
    ]
    return "\n".join([made(part), *tables])


def threads_block() -> str:
    part = load()["threads"]
    tables = [f"### {described(each)}\n\n{plain(each['rows'])}" for each in part["captures"]]
    return "\n".join([made(part), *tables])


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "speed": speed_block,
    "bench-codecs": codecs_block,
    "bench-commands": commands_block,
    "bench-threads": threads_block,
    "bench-peers": peers_block,
}
