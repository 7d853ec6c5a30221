"""kvq_cli: compress, decompress, inspect, verify and report on transformer KV caches.

What is public is listed in PUBLIC and loaded when it is first asked for: importing kvq_cli
costs nothing, and `inspect` never loads NumPy. Types stand in __init__.pyi.
"""

__version__ = "0.1.0"

# Name to module; nothing else is looked up.
PUBLIC = {
    "CacheWriter": "kvq_cli.growing",
    "CapacityError": "kvq_cli.growing",
    "Container": "kvq_cli.steps.opened",
    "DType": "kvq_cli.words",
    "Expected": "kvq_cli.steps.expect",
    "Geometry": "kvq_cli.steps.geometry",
    "KvqError": "kvq_cli.errors",
    "Role": "kvq_cli.words",
    "Selection": "kvq_cli.steps.select",
    "calibrate": "kvq_cli.advice",
    "compress": "kvq_cli.pipeline",
    "decompress": "kvq_cli.pipeline",
    "inspect": "kvq_cli.steps.describe",
    "load_profile": "kvq_cli.profile",
    "open_container": "kvq_cli.steps.opened",
    "plan_stats": "kvq_cli.advice",
    "recover": "kvq_cli.pipeline",
    "stats": "kvq_cli.pipeline",
    "suggest": "kvq_cli.advice",
    "verify": "kvq_cli.pipeline",
}

__all__ = [
    "CacheWriter",
    "CapacityError",
    "Container",
    "DType",
    "Expected",
    "Geometry",
    "KvqError",
    "Role",
    "Selection",
    "__version__",
    "calibrate",
    "compress",
    "decompress",
    "inspect",
    "load_profile",
    "open_container",
    "plan_stats",
    "recover",
    "stats",
    "suggest",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # not needed by `kvq --version`

    found = getattr(import_module(PUBLIC[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
