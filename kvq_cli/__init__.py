"""kvq_cli: compress, decompress, inspect, verify and report on transformer KV caches."""

__version__ = "0.1.0"
