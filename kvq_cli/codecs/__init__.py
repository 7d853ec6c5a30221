"""codecs: the contract. A codec turns a page into planes and planes into a page.

Spec: formats/codecs/, one page a codec.

A codec is a frozen dataclass of its parameters. It knows no files and no bytes: its layout
fixes every size, from parameters and page spec alone. What it cannot derive by exact rules, such
as a trained codebook, are tables: its parameters name them by digest, a container holds them,
and they come with the scratch. It obeys the law of exactness: no
float reduction, no float matrix product, no transcendental on the way to a byte.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.numerics import rows
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import Layout, Planes
from kvq_cli.words import TableSpec


@runtime_checkable
class Codec(Protocol):
    """One method, under one name and revision."""

    name: ClassVar[str]  # file name, spec page, vector file, key in the registry
    revision: ClassVar[int]  # other bytes, other revision; old ones decode for ever
    lossless: ClassVar[bool]
    placed: ClassVar[bool] = False  # whether page specs must say where the page lies

    def layout(self, spec: PageSpec) -> Layout:
        """The planes of a page of this spec."""
        ...

    def tables(self) -> tuple[TableSpec, ...]:
        """The tables that encode and decode find in `scratch.tables`."""
        return ()

    def check_spec(self, spec: PageSpec) -> None:
        """CodecError E501 where no page of this spec can be held, whatever its elements."""

    def encode(self, page: Page, scratch: Scratch) -> Planes:
        """The planes, alive in `scratch` until its next use; NonFinite where they cannot be."""
        ...

    def check(self, planes: Planes, spec: PageSpec) -> None:
        """CodecError E502 where no encoder writes such planes; cheaper than decoding them."""
        ...

    def check_words(
        self,
        planes: Planes,  # noqa: ARG002
        spec: PageSpec,  # noqa: ARG002
        scratch: Scratch,  # noqa: ARG002
    ) -> None:
        """CodecError E502 for what `check` leaves to decoding, as far as tables are there."""
        return

    def decode(self, planes: Planes, spec: PageSpec, into: Page, scratch: Scratch) -> None:
        """Write every element of `into`, whose dtype may differ from the spec's."""
        ...


class NonFinite(CodecError):  # noqa: N818 - the word that specs and reasons use
    """A page holds NaN or infinity: where first, and in which of its heads."""

    def __init__(self, codec: str, page: Page) -> None:
        self.first, self.heads = rows.first_non_finite(page)  # (head, token, channel); (H,)
        head, token, channel = self.first
        word = f"0x{int(page.bits[self.first]):0{2 * page.spec.dtype.size}x}"
        super().__init__(
            "E501",
            f"{codec} holds finite numbers only: {page.spec.dtype} bits {word} "
            f"at head {head}, token {token}, channel {channel} of the page",
        )


class Larger(CodecError):  # noqa: N818 - the word that specs and reasons use
    """A page that would take more bytes than it did."""

    def __init__(self, codec: str) -> None:
        super().__init__("E501", f"{codec}: a page that would be larger than it was")


def refuse_non_finite(codec: str, page: Page, peaks: NDArray[Any], dtype: DType) -> None:
    """NonFinite unless all of these extremes, bits of `dtype` (see numerics.rows), are finite."""
    if not rows.all_finite(peaks, dtype):
        raise NonFinite(codec, page)


def arrays_for(layout: Layout, scratch: Scratch) -> dict[str, NDArray[Any]]:
    """Uninitialised planes, to encode into."""
    return {
        plane.name: scratch.take(f"planes.{plane.name}", plane.shape, plane.dtype)
        for plane in layout
    }


def page_of(spec: PageSpec) -> Page:
    """An uninitialised page, to decode into."""
    return Page(spec, np.empty(spec.shape, spec.dtype.bits))
