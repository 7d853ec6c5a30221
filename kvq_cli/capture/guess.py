"""guess: proposes a layout map for tensors that no layout fits, and says what it does not know.

Spec: formats/layout_map.md, section "Proposals".

Names, shapes, dtypes and metadata alone are looked at, as everywhere.
"""

from __future__ import annotations

import re
from typing import Any, Final

from kvq_cli.capture.facts import COUNT
from kvq_cli.capture.files import Files
from kvq_cli.capture.foreign import refuse_weights
from kvq_cli.capture.guess_axes import Known
from kvq_cli.capture.guess_names import families
from kvq_cli.capture.guess_rules import OPEN, Proposal
from kvq_cli.capture.header import Tensor, shown
from kvq_cli.capture.layout import QUANTISABLE, check_bindings, layers_of
from kvq_cli.capture.layout_map import SCHEMA, parse_map
from kvq_cli.capture.mapped import recognise
from kvq_cli.capture.rows import joined
from kvq_cli.errors import CaptureError, KvqError
from kvq_cli.record import record

MAX_ASIDE: Final = 4
FLOATS: Final = ("F16", "BF16", "F32", "F8_E5M2", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
INTEGERS: Final = ("I32", "U32", "I64", "U64")
WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
# Words of model weights, and of tensors that go along with a cache.
WEIGHTS: Final = {
    *("weight", "weights", "bias", "proj", "embed", "embeddings", "embd", "norm", "layernorm"),
    *("mlp", "ffn", "lm", "wte", "wpe", "wk", "wv", "gate", "lora", "conv", "experts"),
}
OTHERS: Final = {
    *("q", "query", "queries", "scale", "scales", "bias", "biases", "zero", "zeros"),
    *("mask", "hidden", "logits", "grad", "exp", "avg"),
}
CACHES: Final = {"kv", "cache", "caches", "kvcache", "kvcaches", "past", "pkv"}


@record
class Guess:
    """A layout map as JSON, whether it can be used as it is, and what is not certain."""

    layout_map: dict[str, Any]
    complete: bool
    doubts: tuple[str, ...]


def propose(files: Files) -> Guess:
    """The map that fits best; CaptureError where nothing looks like a cache."""
    _refuse_weights(files)
    floats = [each for each in files.tensors if _may_be_rows(each)]
    _refuse_packed(files, floats)
    found = families(files, floats)
    if not found:
        raise CaptureError("E204", "no tensor looks like keys or values")
    family, *others = found
    doubts = [
        f'left aside: "{shown(files.label(each.members[0].tensor))}", {len(each.members)} such'
        for each in others[:MAX_ASIDE]
    ]
    if len(others) > MAX_ASIDE:
        doubts.append(f"left aside: tensors of {len(others) - MAX_ASIDE} more kinds")
    if len(family.members[0].roles) > 1 and not _words(family.members[0].tensor) & CACHES:
        doubts.append("no word says that these are keys and values")
    if any(each.dtype in INTEGERS and not each.shape for each in files.tensors):
        doubts.append(
            "numbers stand beside the tensors: if they count tokens, and zeros lie behind"
        )
        doubts[-1] += " them, a map takes these zeros for tokens"
    rules = Proposal(files, family, _known(files), doubts).rules()
    made = {"schema": SCHEMA, "rules": rules}
    return Guess(made, _holds(made, files, doubts), tuple(doubts))


def _may_be_rows(tensor: Tensor) -> bool:
    return (
        tensor.dtype in FLOATS
        and len(tensor.shape) > 1
        and tensor.nbytes > 0
        and not _words(tensor) & OTHERS
    )


def _refuse_weights(files: Files) -> None:
    words = [each for each in files.tensors if _words(each) & WEIGHTS]
    if 2 * len(words) > len(files.tensors) or _has_projections(files):
        refuse_weights(each.name for each in files.tensors)
        example = f'"{shown(files.label((words or files.tensors)[0]))}"'
        raise CaptureError("E204", f"these are weights of a model, it seems, no cache: {example}")


def _words(tensor: Tensor) -> set[str]:
    return {each.lower() for each in WORD.findall(tensor.name)}


def _has_projections(files: Files) -> bool:
    """Matrices for queries beside those for keys."""
    flat = [each for each in files.tensors if len(each.shape) == 2]
    queries = [each for each in flat if _words(each) & {"q", "query", "wq"}]
    return bool(queries) and any(_words(each) & {"k", "key", "wk"} for each in flat)


def _refuse_packed(files: Files, floats: list[Tensor]) -> None:
    """Packed integers with scales beside them are no rows that a map could name."""
    rows = sum(each.nbytes for each in floats)
    packed = [each for each in files.tensors if each.dtype not in FLOATS and len(each.shape) > 2]
    if sum(each.nbytes for each in packed) > rows:
        label = shown(files.label(packed[0]))
        why = f"most bytes are {packed[0].dtype}: packed numbers, which no layout map reads"
        raise CaptureError("E204", why, label)


def _known(files: Files) -> Known:
    """What is told of lengths: by metadata, and by integers that go with the tokens."""
    told = {
        key: int(text)
        for key in ("tokens", "kv_heads", "head_dim")
        if COUNT.fullmatch(text := files.metadata.get(key, ""))
    }
    beside = {
        each.shape[0] for each in files.tensors if each.dtype in INTEGERS and len(each.shape) == 1
    }
    tokens = {told["tokens"]} if "tokens" in told else beside - {1}
    return Known(frozenset(tokens), told.get("kv_heads"), told.get("head_dim"))


def _holds(made: dict[str, Any], files: Files, doubts: list[str]) -> bool:
    """Whether the map binds the tensors; if not, the doubts say why."""
    if any(rule["axes"] == OPEN for rule in made["rules"]):
        return False
    try:
        found = recognise(parse_map(made), files)
        bindings = found.bindings if found else ()
        check_bindings(files, bindings)
        layers_of(joined(files, [each for each in bindings if each.tensor.dtype in QUANTISABLE]))
    except KvqError as error:
        doubts.append(f"as it is, the map is refused: {error}")
        return False
    return found is not None
