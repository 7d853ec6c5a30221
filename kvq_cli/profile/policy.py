"""policy: which codec each (role, layer, head, token) gets.

Spec: formats/profile.md, section "Which codec".

What a profile says about one role and layer is a list of claims, the strongest first:
protected layers, heads and tokens, then the rules in order. A claim holds a set of heads
and token spans; a (head, token) belongs to the first claim that holds both. Heads are
bits of an integer and tokens are cut only at the ends of spans, so the cost depends on
the number of rules and not on the size of the capture.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Final, TypeAlias

from kvq_cli.codecs import Codec
from kvq_cli.codecs.registry import codec_from_json
from kvq_cli.profile.model import Profile
from kvq_cli.profile.ranges import Range
from kvq_cli.record import record
from kvq_cli.words import Reason, Role

RAW: Final = codec_from_json("raw", {}, "")

Span: TypeAlias = tuple[int, int]
Treatment: TypeAlias = tuple[Codec, Reason]
Segment: TypeAlias = tuple[int, int, Treatment]


@record
class Run:
    """A set of heads and a maximal token range of one layer that are treated alike."""

    heads: tuple[int, ...]
    start: int
    stop: int
    codec: Codec
    reason: Reason


@record
class _Claim:
    heads: int  # bit h stands for head h
    spans: tuple[Span, ...]
    treatment: Treatment


def runs(
    profile: Profile, role: Role, layer: int, *, layers: int, heads: int, tokens: int
) -> tuple[Run, ...]:
    """Runs that cover every (head, token) of a layer exactly once, by start, then heads."""
    if not (0 <= layer < layers and heads >= 0 and tokens >= 0):
        raise ValueError(f"layer {layer} of {layers}, {heads} heads, {tokens} tokens")
    if heads == 0 or tokens == 0:
        return ()
    claims = list(_claims(profile, role, layer, layers=layers, heads=heads, tokens=tokens))
    alike: dict[tuple[Segment, ...], int] = {}
    for head_bits, claim_bits in _head_groups(claims, heads):
        segments = _segments([claims[at] for at in _members(claim_bits)], tokens)
        alike[segments] = alike.get(segments, 0) | head_bits
    found = [
        Run(_members(head_bits), start, stop, codec, reason)
        for segments, head_bits in alike.items()
        for start, stop, (codec, reason) in segments
    ]
    return tuple(sorted(found, key=lambda run: (run.start, run.heads)))


def pages(run: Run, page_tokens: int) -> tuple[Span, ...]:
    """The token ranges of a run, cut at the layer's multiples of `page_tokens`."""
    first = run.start - run.start % page_tokens
    return tuple(
        (max(run.start, at), min(run.stop, at + page_tokens))
        for at in range(first, run.stop, page_tokens)
    )


def page_lengths(run: Run, page_tokens: int) -> dict[int, int]:
    """How many of these pages hold how many tokens, without a look at each."""
    first = min(page_tokens - run.start % page_tokens, run.stop - run.start)
    whole, last = divmod(run.stop - run.start - first, page_tokens)
    lengths = Counter({first: 1}) + Counter({page_tokens: whole}) + Counter({last: 1})
    return {tokens: count for tokens, count in lengths.items() if tokens}


def codec_table(*profiles: Profile) -> tuple[Codec, ...]:
    """Every codec the profiles may use, once: raw, those of rules, those of ladders."""
    rules = [rule.codec for profile in profiles for rule in profile.rules]
    rungs = [rung.codec for profile in profiles if profile.budget for rung in profile.budget.ladder]
    return tuple(dict.fromkeys((RAW, *rules, *rungs)))


def _claims(
    profile: Profile, role: Role, layer: int, *, layers: int, heads: int, tokens: int
) -> Iterator[_Claim]:
    all_heads, all_tokens = (1 << heads) - 1, ((0, tokens),)
    protected = profile.protected
    raw = (RAW, Reason.PROTECTED)
    if _holds(protected.layers, layer, layers):
        yield _Claim(all_heads, all_tokens, raw)
    yield _Claim(_head_bits(protected.heads, heads), all_tokens, raw)
    first, last = min(protected.first_tokens, tokens), max(tokens - protected.last_tokens, 0)
    yield _Claim(all_heads, ((0, first), (last, tokens)), raw)
    for rule in profile.rules:
        if rule.role in (None, role) and _holds(rule.layers, layer, layers):
            chosen = all_heads if rule.heads is None else _head_bits(rule.heads, heads)
            spans = all_tokens if rule.tokens is None else _spans(rule.tokens, tokens)
            yield _Claim(chosen, spans, (rule.codec, Reason.NONE))


def _holds(ranges: tuple[Range, ...] | None, at: int, length: int) -> bool:
    return ranges is None or any(start <= at < stop for start, stop in _spans(ranges, length))


def _spans(ranges: tuple[Range, ...], length: int) -> tuple[Span, ...]:
    resolved = (each.resolve(length) for each in ranges)
    return tuple((start, stop) for start, stop in resolved if start < stop)


def _head_bits(ranges: tuple[Range, ...], heads: int) -> int:
    bits = 0
    for start, stop in _spans(ranges, heads):
        bits |= (1 << stop) - (1 << start)
    return bits


def _head_groups(claims: list[_Claim], heads: int) -> list[tuple[int, int]]:
    """Heads that the same claims hold, as bits, each with those claims, as bits."""
    groups = [((1 << heads) - 1, 0)]
    for at, claim in enumerate(claims):
        split = []
        for head_bits, claim_bits in groups:
            if held := head_bits & claim.heads:
                split.append((held, claim_bits | 1 << at))
            if rest := head_bits & ~claim.heads:
                split.append((rest, claim_bits))
        groups = split
    return groups


def _segments(claims: list[_Claim], tokens: int) -> tuple[Segment, ...]:
    """The token ranges of heads that all these claims hold, and no other."""
    ends = {end for claim in claims for span in claim.spans for end in span}
    cuts = sorted(ends | {0, tokens})
    # Painted from the weakest claim to the strongest: the last coat is the one that shows.
    # The weakest is a rule that matches everything, so that nothing stays bare.
    painted = [claims[-1].treatment] * (len(cuts) - 1)
    for claim in reversed(claims):
        for start, stop in claim.spans:
            low, high = bisect_left(cuts, start), bisect_left(cuts, stop)
            painted[low:high] = [claim.treatment] * (high - low)
    segments = []
    for treatment, pieces in groupby(range(len(painted)), key=painted.__getitem__):
        first, *more = pieces
        segments.append((cuts[first], cuts[(more or [first])[-1] + 1], treatment))
    return tuple(segments)


def _members(bits: int) -> tuple[int, ...]:
    return tuple(at for at in range(bits.bit_length()) if bits >> at & 1)
