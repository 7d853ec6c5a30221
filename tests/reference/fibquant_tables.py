"""fibquant_tables: rotation and training of a codebook, one number at a time.

Part of the reference reader: written from `formats/fibquant-compat.md` alone, without kvq_cli
and without NumPy. Slow: for small profiles.
"""

from __future__ import annotations

import math
from typing import Any

from reference.fibquant_draws import U64, Stream
from reference.fibquant_pieces import LANCZOS, PIECES


def added(terms: Any) -> float:
    total = 0.0
    for term in terms:
        total += term
    return total


def lanes(a: list[float], b: list[float]) -> float:
    products = [x * y for x, y in zip(a, b, strict=True)]
    whole = len(products) // 8 * 8
    lane = [added(products[j:whole:8]) for j in range(8)]
    return added([*(lane[j] + lane[j + 4] for j in range(4)), *products[whole:]])


def rotation(d: int, seed: int) -> list[list[float]]:
    """The rows of Q."""
    stream = Stream(seed)
    a = [[stream.normal() for _ in range(d)] for _ in range(d)]  # columns
    axes, signs = [], []
    for i in range(d):
        axis = a[i][i:]
        square = lanes(axis, axis)
        norm = math.sqrt(square)
        sign = 1.0 if axis[0] >= 0 else -1.0
        factor = (square + abs(axis[0]) * norm) * 2
        axis[0] += sign * norm
        axis = [x / math.sqrt(factor) for x in axis]
        length = math.sqrt(lanes(axis, axis))
        axes.append([x / length for x in axis])
        signs.append(-sign)
        for j in range(i + 1, d):
            reflect(a[j], axes[i], i, signs[i])
    q = [[float(i == j) for i in range(d)] for j in range(d)]  # columns
    for i in reversed(range(d)):
        for j in range(i, d):
            reflect(q[j], axes[i], i, signs[i])
    return [[q[j][i] for j in range(d)] for i in range(d)]


def reflect(column: list[float], axis: list[float], row: int, sign: float) -> None:
    f = lanes(axis, column[row:]) * (sign * -2)
    column[row:] = [x * f + sign * y for x, y in zip(axis, column[row:], strict=True)]


def turned(q: list[list[float]], x: list[float]) -> list[float]:
    return [added(a * b for a, b in zip(row, x, strict=True)) for row in q]


def ln_gamma(x: float) -> float:
    s = LANCZOS[0]
    for i in range(1, 11):
        s += LANCZOS[i] / (x + i - 1)
    logarithm = math.log((x - 0.5 + 10.900511) / 2.718281828459045)
    return math.log(s) + 0.6207822376352452223455 + (x - 0.5) * logarithm


def distribution(a: float, b: float, x: float) -> float:
    if x <= 0 or x >= 1:
        return float(x >= 1)
    sizes = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)
    front = math.exp(sizes + a * math.log(x) + b * math.log(1 - x))
    if x < (a + 1) / (a + b + 2):
        return front * fraction(a, b, x) / a
    return 1 - front * fraction(b, a, 1 - x) / b


def fraction(a: float, b: float, x: float) -> float:
    def nz(t: float) -> float:
        return 2.0**-969 if abs(t) < 2.0**-969 else t

    ab, a1, a0 = a + b, a + 1, a - 1
    c, e = 1.0, 1 / nz(1 - ab * x / a1)
    h = e
    for m in range(1, 141):
        t = m * (b - m) * x / ((a0 + 2 * m) * (a + 2 * m))
        e, c = 1 / nz(1 + t * e), nz(1 + t / c)
        h = h * e * c
        t = -(a + m) * (ab + m) * x / ((a + 2 * m) * (a1 + 2 * m))
        e, c = 1 / nz(1 + t * e), nz(1 + t / c)
        h *= e * c
        if abs(e * c - 1) <= 2.0**-53:
            break
    return h


def beta_quantile(a: float, b: float, q: float) -> float:
    low, high = -2.0, 2.0
    for _ in range(16):
        middle = (high + low) / 2
        if distribution(a, b, middle) >= q:
            high = middle
        else:
            low = middle
    return min(max((high + low) / 2, 0.0), 1.0)


def normal_quantile(p: float) -> float:
    x = 2 * p
    return 0 - math.sqrt(2) * (-positive(-1 + x, 2 - x) if x > 1 else positive(1 - x, x))


def positive(p: float, q: float) -> float:
    if p <= 0.5:
        g = p * (p + 10)
        return g * PIECES["A"][0] + g * quotient("A", p)
    if q >= 0.25:
        return math.sqrt(-2 * math.log(q)) / (PIECES["B"][0] + quotient("B", q - 0.25))
    x = math.sqrt(-math.log(q))
    name, shift = ("C", 1.125) if x < 3 else ("D", 3)
    return PIECES[name][0] * x + quotient(name, x - shift) * x


def quotient(name: str, t: float) -> float:
    def horner(coefficients: Any) -> float:
        value = coefficients[-1]
        for coefficient in coefficients[-2::-1]:
            value = value * t + coefficient
        return value

    return horner(PIECES[name][1]) / horner(PIECES[name][2])


def power(b: float, e: int) -> float:
    r = 1.0
    while e:
        if e % 2:
            r *= b
        e //= 2
        if e:
            b *= b
    return r


def first_codebook(d: int, k: int, size: int) -> list[list[float]]:
    turn = 1 - 1 / 1.618033988749895
    low, high = 1.0, 2.0
    for _ in range(128):
        middle = (low + high) / 2
        if power(middle, k + 1) - middle - 1 > 0:
            high = middle
        else:
            low = middle
    phi = (low + high) / 2
    words = []
    for n in range(1, size + 1):
        q, i = (n - 0.5) / size, n - 1
        angle = 2 * math.pi * i * turn
        if k == 2:
            radius = math.sqrt(1 - math.pow(1 - q, 4 / d))
            direction = [math.cos(angle), math.sin(angle)]
        else:
            b = (k / (k + 2)) * ((d - k - 2) / 2) + 1
            radius = math.sqrt(beta_quantile(k / 2, b, q))
            direction = kronecker(k, i, phi)
        if k == 3:
            z = 1 - (2 * (i + 1) - 1) / size
            ring = math.sqrt(max(1 - z * z, 0))
            direction = [ring * math.cos(angle), ring * math.sin(angle), z]
        words.append([radius * x for x in direction])
    return words


def kronecker(k: int, i: int, phi: float) -> list[float]:
    v = []
    for j in range(1, k + 1):
        part = (i + 0.5) * (1 / power(phi, j))
        v.append(normal_quantile(min(max(part - math.floor(part), 1e-12), 1 - 1e-12)))
    norm = math.sqrt(added(x * x for x in v))
    return [x / norm for x in v]


def training_set(profile: Any) -> list[list[float]]:
    d, k = profile["ambient_dim"], profile["block_dim"]
    stream = Stream(profile["codebook_seed"] ^ 0x465155414E54)
    blocks = []
    for _ in range(profile["training_samples"]):
        a = stream.gamma(k / 2)
        b = stream.gamma((d - k) / 2)
        radius = math.sqrt(a / (a + b))
        g = [stream.normal() for _ in range(k)]
        norm = math.sqrt(added(x * x for x in g))
        blocks.append([radius * (x / norm) for x in g])
    return blocks


def distance(s: list[float], c: list[float]) -> float:
    return added((x - y) * (x - y) for x, y in zip(s, c, strict=True))


def nearest(s: list[float], words: list[list[float]]) -> tuple[float, int]:
    return min((distance(s, c), number) for number, c in enumerate(words))


def error(blocks: list[list[float]], words: list[list[float]]) -> float:
    return added(nearest(s, words)[0] for s in blocks) / len(blocks)


def trained(profile: Any) -> tuple[list[list[float]], dict[str, Any]]:
    k = profile["block_dim"]
    first = first_codebook(profile["ambient_dim"], k, profile["codebook_size"])
    blocks = training_set(profile)
    best, best_restart = first, 0
    init = best_error = error(blocks, first)
    events: list[dict[str, Any]] = []
    for restart in range(profile["lloyd_restarts"]):
        words = [list(c) for c in first]
        if restart:
            q = rotation(k, (profile["codebook_seed"] + restart * 0x9E3779B9) & U64)
            words = [turned(q, c) for c in first]
        for iteration in range(profile["lloyd_iterations"]):
            events += improve(words, blocks, restart, iteration)
        found = error(blocks, words)
        if found < best_error:
            best, best_error, best_restart = words, found, restart
    return best, {
        "schema_version": "lloyd_report_v1",
        "restarts": profile["lloyd_restarts"],
        "iterations": profile["lloyd_iterations"],
        "training_samples": len(blocks),
        "init_mse": init,
        "best_mse": best_error,
        "best_restart": best_restart,
        "empty_cells_repaired": len(events),
        "repair_events": events,
        "seed": profile["codebook_seed"],
    }


def improve(words: Any, blocks: Any, restart: int, iteration: int) -> list[dict[str, Any]]:
    """One iteration, in place."""
    cells: list[list[tuple[float, list[float]]]] = [[] for _ in words]
    for s in blocks:
        far, number = nearest(s, words)
        cells[number].append((far, s))
    counts = [len(cell) for cell in cells]
    distortions = [added(far for far, _ in cell) for cell in cells]
    for number, cell in enumerate(cells):
        if cell:
            words[number] = [
                added(column) / len(cell) for column in zip(*(s for _, s in cell), strict=True)
            ]
    events = []
    for empty in [number for number, count in enumerate(counts) if not count]:
        _, donor = max((distortions[n], n) for n, count in enumerate(counts) if count > 1)
        _, farthest = max(cells[donor], key=lambda member: member[0])
        residual = [x - y for x, y in zip(farthest, words[donor], strict=True)]
        norm = math.sqrt(added(x * x for x in residual))
        old, shift = words[donor], [1e-6 * (x / norm) for x in residual]
        words[donor] = [x - y for x, y in zip(old, shift, strict=True)]
        words[empty] = [x + y for x, y in zip(old, shift, strict=True)]
        events.append(
            {
                "restart": restart,
                "iteration": iteration,
                "empty_cell": empty,
                "donor_cell": donor,
                "donor_count_before": counts[donor],
                "donor_distortion": distortions[donor],
                "residual_norm": norm,
                "split_epsilon": 1e-6,
            }
        )
        counts[donor], counts[empty] = counts[donor] - 1, 1
        distortions[donor] = distortions[empty] = 0.0
    return events
