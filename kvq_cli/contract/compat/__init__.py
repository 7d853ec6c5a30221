"""compat: rotation, codebook, vector codes and pages as fib_quant computes them, byte for byte.

Spec: formats/fibquant-compat.md.

    chacha8 → ziggurat → draws ─┬→ rotation ──────────────────────────┐
    beta_inverse, normal_inverse → initial ─┐                         ├→ vector_code → kv_pages
                  draws → training ─────────┴→ lloyd → codebook ──────┘

These modules run when a profile is made and when a capture is compressed, never to decode:
a container stores the tables. So they may use what the law of exactness bans, where the
reference does, and tests/architecture/test_exactness_ban.py lists each place.
"""
