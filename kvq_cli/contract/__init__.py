"""contract: the typed words and digests shared, byte for byte, with the fib_quant system.

Spec: formats/contract.md.
"""
