"""ChaCha8: the published cipher, counted in blocks."""

from __future__ import annotations

import numpy as np

from kvq_cli.contract.compat import chacha8


def test_the_zero_key_has_its_published_keystream() -> None:
    """ChaCha8 of a key and a nonce of zeros begins as the cipher's test vectors do."""
    stream = chacha8.draws([0] * 8, 0, 1).astype("<u8").tobytes()
    assert stream.hex().startswith(
        "3e00ef2f895f40d67f5bb8e81f09a5a12c840ec3ce9a7f3b181be188ef711a1e"
    )


def test_blocks_do_not_depend_on_their_neighbours() -> None:
    """A block is the same alone and among others."""
    key = chacha8.key_words(1)
    whole = chacha8.draws(key, 0, 5)
    parts = [chacha8.draws(key, at, 1) for at in range(5)]
    assert np.array_equal(whole, np.concatenate(parts))


def test_the_counter_has_64_bits() -> None:
    """Block 2^32 is not block 0 again."""
    key = chacha8.key_words(1)
    assert not np.array_equal(chacha8.draws(key, 2**32, 1), chacha8.draws(key, 0, 1))
    crossing = chacha8.draws(key, 2**32 - 1, 2)
    assert np.array_equal(crossing[8:], chacha8.draws(key, 2**32, 1))
