"""floor: the least that any Python tool with kvq's promises must do to halve a file.

    python benchmarks/floor.py SOURCE TARGET

Import what kvq imports from others, read every byte of SOURCE and hash it, hash half as many
bytes, write them to TARGET and sync. Two threads, no codec, no format, no checks: a bound
from below for `kvq compress --profile int8`.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import Final

from blake3 import blake3

PIECE: Final = 1 << 20
THREADS: Final = 2


def halve(source: int, target: int, start: int, stop: int) -> None:
    piece = memoryview(bytearray(PIECE))
    for at in range(start, stop, PIECE):
        count = os.preadv(source, [piece], at)
        half = piece[: count // 2]
        blake3(piece[:count]).digest()
        blake3(half).digest()
        os.pwrite(target, half, at // 2)


def main() -> None:
    for name in ("numpy", "typer", "zstandard", "safetensors"):
        importlib.import_module(name)
    source = os.open(sys.argv[1], os.O_RDONLY)
    target = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    share = -(-os.fstat(source).st_size // (THREADS * PIECE)) * PIECE
    ranges = [(at * share, (at + 1) * share) for at in range(THREADS)]
    threads = [threading.Thread(target=halve, args=(source, target, *each)) for each in ranges]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.fsync(target)


if __name__ == "__main__":
    main()
