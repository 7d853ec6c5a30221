"""entropy: one zstd frame a plane, behind a guard.

Spec: formats/container.md, section "Coded payloads".

Nothing is decoded unless the frame states exactly the size that the digested plane table
states, needs no dictionary and no window beyond MAX_WINDOW, and ends where the plane ends.
"""

from __future__ import annotations

from typing import Final

import zstandard

from kvq_cli.digest import Buffer
from kvq_cli.errors import ContainerError

STORED: Final = 0
ZSTD: Final = 1
FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"
MAX_WINDOW_LOG: Final = 23
MAX_WINDOW: Final = 1 << MAX_WINDOW_LOG
# A plane that saves less than this part of itself stays stored: it is read and written faster.
LEAST_SAVING: Final = 16
LEAST_SIZE: Final = 128  # smaller planes save less than the call costs
# Large planes are judged by a piece from their middle before all of them is coded: half of what
# the plane must save is asked of it, since a small frame pays the same for its code table.
SAMPLE: Final = 1 << 13


class Coder:
    """zstd at one level; not for two threads at once."""

    def __init__(self, level: int) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, write_content_size=True, write_checksum=False, write_dict_id=False
        )
        if parameters.window_log > MAX_WINDOW_LOG:
            parameters = zstandard.ZstdCompressionParameters.from_level(
                level,
                window_log=MAX_WINDOW_LOG,
                write_content_size=True,
                write_checksum=False,
                write_dict_id=False,
            )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters)

    def code(self, plane: Buffer) -> bytes | None:
        """One frame, or None where the plane is better stored."""
        view = memoryview(plane)
        if len(view) > 4 * SAMPLE:
            middle = len(view) // 2
            if self._coded(view[middle : middle + SAMPLE], 2 * LEAST_SAVING) is None:
                return None
        return self._coded(view, LEAST_SAVING)

    def _coded(self, plane: memoryview, part: int) -> bytes | None:
        """One frame, if it saves a `part`-th of the plane."""
        if len(plane) < LEAST_SIZE:
            return None
        frame = self._compressor.compress(plane)
        return frame if len(frame) <= len(plane) - len(plane) // part else None


class Decoder:
    """The guarded way back; not for two threads at once."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)

    def decode(self, frame: memoryview, packed: int, offset: int) -> bytes:
        """Exactly `packed` bytes, or ContainerError E307."""
        if bytes(frame[:4]) != FRAME_MAGIC:
            raise ContainerError("E307", "coded plane is not a zstd frame", offset)
        try:
            stated = zstandard.get_frame_parameters(frame)
            if stated.content_size != packed:
                raise ContainerError(
                    "E307", f"frame of {stated.content_size} bytes, the table says {packed}", offset
                )
            if stated.dict_id or stated.window_size > MAX_WINDOW:
                raise ContainerError("E307", "frame needs a dictionary or a large window", offset)
            plane = self._decompressor.decompress(
                frame, max_output_size=packed, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise ContainerError("E307", f"zstd: {error}", offset) from error
        if len(plane) != packed:
            raise ContainerError("E307", f"{len(plane)} bytes, not {packed}", offset)
        return plane
