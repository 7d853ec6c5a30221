"""container: the bytes of a .kvq file. It knows framing, digests and order, and no codec.

Spec: formats/container.md.
"""
