"""compat_speed: codec fib_quant, whose tables fit one head_dim, on jobs of 1 MiB.

    python -m benchmarks.compat_speed            d = 128, k = 4, N = 256, F16, one thread

Data are normal numbers: no result of the codec depends on what a cache looks like.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from kvq_cli.codecs import page_of
from kvq_cli.codecs.fib_quant import FibQuant
from kvq_cli.contract.compat.vector_code import Quantizer
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import table_spec

JOB: Final = 1 << 19  # elements
ROUNDS: Final = 7


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("dim", 128), ("block", 4), ("size", 256)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    profile = FibQuantProfileV1.paper_default(options.dim, options.block, options.size, 7)
    made = Quantizer.build(profile)
    arrays = made.rotation.matrix, made.codebook.codewords
    tables = {table_spec(each).digest: each for each in arrays}
    scratch = Scratch(tables)
    spec = PageSpec(JOB // (256 * options.dim), 256, options.dim, DType.F16)
    values = np.random.default_rng(1).standard_normal(spec.shape)
    page = Page(spec, values.astype(np.float16).view(np.uint16))
    for axis in ("token", "channel"):
        codec = FibQuant(
            options.dim, options.block, options.size, *tables, made.profile_digest, axis
        )
        planes = {name: np.array(each) for name, each in codec.encode(page, scratch).items()}
        into = page_of(spec)
        cast = fastest(lambda: page.bits.view(np.float16).astype(np.float32))
        encode = fastest(partial(codec.encode, page, scratch))
        decode = fastest(partial(codec.decode, planes, spec, into, scratch))
        for way, seconds in (("encode", encode), ("decode", decode)):
            per = seconds / spec.elements * 1e9
            print(f"{axis:8} {way}  {per:7.1f} ns an element, {seconds / cast:6.1f} casts")
    return 0


def fastest(call: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds."""
    least = float("inf")
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - begun)
    return least


if __name__ == "__main__":
    raise SystemExit(main())
