"""unsplit: pages that come back only with all their heads and layers, for trials.

A codec without an axis "H" holds the heads of a page together: a budget looks at them layer by
layer and head by head, but they are encoded, and raised, as one.
"""

from __future__ import annotations

from typing import Any, Final

from numpy.typing import NDArray

from kvq_cli.codecs import Codec
from kvq_cli.steps.encode import Encoder
from kvq_cli.steps.plan import PagePlan, whole_codec
from kvq_cli.words import PageKey

KEPT: Final = 1 << 26  # bytes of decoded pages; those that were made first are made again


class Unsplit:
    """What whole pages come back as; for one thread."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._kept: dict[tuple[PageKey, Codec], NDArray[Any]] = {}
        self._held = 0

    def has(self, page: PagePlan, codec: Codec) -> bool:
        """Whether the heads of this page of one layer come back together with others only."""
        return page.whole is not None and whole_codec(codec, page.whole.spec)

    def rows(self, page: PagePlan, codec: Codec, heads: tuple[int, ...]) -> NDArray[Any]:
        """Bits of some heads of a page of one layer, as the codec gives them back."""
        whole = page.whole
        assert whole is not None
        layer = page.record.key.layer - whole.record.key.layer
        apart = self._decoded(whole, codec).reshape(len(whole.slabs), len(whole.heads), -1)
        chosen = apart[layer, [whole.heads.index(head) for head in heads]]
        return chosen.reshape(len(heads), *whole.spec.shape[1:])

    def _decoded(self, whole: PagePlan, codec: Codec) -> NDArray[Any]:
        place = whole.record.key, codec
        found = self._kept.get(place)
        if found is None:
            found = self._encoder.returned(whole, codec)[1].bits.copy()
            while self._kept and self._held + found.nbytes > KEPT:
                self._held -= self._kept.pop(next(iter(self._kept))).nbytes
            self._kept[place] = found
            self._held += found.nbytes
        return found
