"""attention: the metrics of formats/report.md in plain float64 NumPy, one query at a time.

Written from the page alone; nothing of kvq is used.
"""

from __future__ import annotations

import numpy as np

FLOOR = 1e-12


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def largest(logits, k):
    """Places of the k largest as float32; of equal ones the first."""
    return set(np.argsort(-logits.astype(np.float32), kind="stable")[:k].tolist())


def metrics_of(query, before, after, scale):
    """The six metrics of one query; `before` and `after` are keys and values (n, D)."""
    (keys, values), (keys_after, values_after) = before, after
    logits, others = keys @ query * scale, keys_after @ query * scale
    p, q = softmax(logits), softmax(others)
    one, other = p @ values, q @ values_after
    k = min(8, len(keys))
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    cosine = one @ other / lengths if lengths else float(not one.any() and not other.any())
    return {
        "logit_mse": ((logits - others) ** 2).mean(),
        "attention_tv": np.abs(p - q).sum() / 2,
        "attention_kl": (p * np.log(np.maximum(p, FLOOR) / np.maximum(q, FLOOR))).sum(),
        "topk_disagreement": 1 - len(largest(logits, k) & largest(others, k)) / k,
        "value_aggregation_mse": ((one - other) ** 2).mean(),
        "attention_cosine": cosine,
    }


def drift(queries, sees, before, after, scale):
    """Means over queries: by metric, an array of one number a query head.

    Queries are (query heads, n, D); keys and values (kv heads, T, D).
    """
    share = len(queries) // len(before[0])
    found = {}
    for head, asked in enumerate(queries):
        pair = [tuple(each[head // share] for each in side) for side in (before, after)]
        rows = [
            metrics_of(query, *(tuple(each[:count] for each in side) for side in pair), scale)
            for query, count in zip(asked, sees, strict=True)
            if count > 0
        ]
        for name in rows[0]:
            found.setdefault(name, []).append(np.mean([row[name] for row in rows]))
    return {name: np.array(each) for name, each in found.items()}


def turned(rows, positions, theta, *, interleaved=False):
    """Rows (…, T, D) with rotary positions, by complex numbers."""
    pairs = rows.shape[-1] // 2
    angles = np.outer(positions, theta ** (-np.arange(pairs) / pairs))
    if interleaved:
        numbers = rows[..., 0::2] + 1j * rows[..., 1::2]
    else:
        numbers = rows[..., :pairs] + 1j * rows[..., pairs:]
    numbers = numbers * np.exp(1j * angles)
    out = np.empty_like(rows)
    if interleaved:
        out[..., 0::2], out[..., 1::2] = numbers.real, numbers.imag
    else:
        out[..., :pairs], out[..., pairs:] = numbers.real, numbers.imag
    return out
