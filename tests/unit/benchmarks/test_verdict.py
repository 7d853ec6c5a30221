"""Where a peer wins: the rule, on rows by hand."""

from benchmarks.verdict import violations

KVQ = {
    "name": "ours",
    "kind": "kvq",
    "role": "key",
    "threads": 1,
    "bits": 8.0,
    "relative_mse": 1e-4,
    "encode_per_cast": 1.0,
    "decode_per_cast": 1.0,
}
PEER = {**KVQ, "name": "theirs", "kind": "peer"}


def found(*rows):
    return [(row["peer"], row["way"], row["kvq"]) for row in violations(rows)]


def test_a_tie_is_no_win():
    """As fast, as small and as exact is not faster."""
    assert found(KVQ, PEER) == []


def test_a_faster_peer_wins_in_that_way_alone():
    """Encode and decode are judged each by itself, against the best row of kvq."""
    slower = {**KVQ, "name": "slower", "encode_per_cast": 2.0}
    assert found(KVQ, slower, {**PEER, "encode_per_cast": 0.9}) == [("theirs", "encode", "ours")]


def test_bits_and_errors_have_a_little_room():
    """2 % of bits and 5 % of error are the same; more is another class, with no row against it."""
    fast = {**PEER, "encode_per_cast": 1.5, "decode_per_cast": 1.5}
    assert found({**KVQ, "bits": 8.15, "relative_mse": 1.04e-4}, fast) == []
    unopposed = [("theirs", "encode", None), ("theirs", "decode", None)]
    assert found({**KVQ, "bits": 8.2}, fast) == unopposed
    assert found({**KVQ, "relative_mse": 1.1e-4}, fast) == unopposed


def test_only_the_same_role_and_threads_compare():
    """Values say nothing of keys, nor two threads of one."""
    assert len(found({**KVQ, "role": "value"}, PEER)) == 2
    assert len(found({**KVQ, "threads": 2}, PEER)) == 2


def test_bounds_are_no_rivals():
    """A copy is faster than anything and wins nothing."""
    assert found(KVQ, {**PEER, "kind": "bound", "encode_per_cast": 0.1}) == []
