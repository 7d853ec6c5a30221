"""coverage: pages that the header has, in order, each head and token once."""

from __future__ import annotations

import copy

import pytest

from kvq_cli.container import coverage as limits
from kvq_cli.container.coverage import Coverage, Gap
from kvq_cli.container.records import PageRecord
from kvq_cli.errors import ContainerError
from kvq_cli.words import DType, PageKey, PageSpec, Reason, Role
from support.manifests import changed, header_of, read

# Two layers of two heads and six tokens of four channels; codecs raw and int8.
PLAIN = changed(header_of("int8-token"), head_sets=[[0], [1], [0, 1], [2]])
# Two batch entries; layer 0 has keys and values of three tokens, layer 2 keys of one.
RAGGED = header_of("ragged")
K, V = Role.KEY, Role.VALUE


def page(role=K, batch=0, layer=0, start=0, stop=6, head_set=2, codec=0, reason=Reason.NONE,
         layers=1):  # fmt: skip
    return PageRecord(PageKey(role, batch, layer, start, head_set, stop, layers), codec, reason)


def refused(take, *args):
    with pytest.raises(ContainerError) as refusal:
        take(*args)
    return refusal.value.error_id


@pytest.mark.parametrize(
    ("record", "spec"),
    [
        (page(), PageSpec(2, 6, 4, DType.F16)),
        (page(role=V, layer=1, start=5, head_set=1, codec=1), PageSpec(1, 1, 4, DType.F16)),
        (page(start=2, stop=4, reason=Reason.BUDGET), PageSpec(2, 2, 4, DType.F16)),
        (page(layers=2), PageSpec(4, 6, 4, DType.F16)),
        (page(role=V, layers=2, start=5, head_set=1), PageSpec(2, 1, 4, DType.F16)),
    ],
)
def test_pages_that_the_header_has(record, spec):
    """Their spec follows from head set, tokens and part."""
    assert Coverage(read(PLAIN)).spec(record) == spec


@pytest.mark.parametrize(
    "wrong",
    [
        {"layer": 2},
        {"batch": 1},
        {"layers": 0},
        {"layers": 3},
        {"layers": 1 << 32},
        {"layer": 1, "layers": 2},
        {"head_set": 4},
        {"codec": 2},
        {"head_set": 3},
        {"stop": 7},
        {"start": 6, "stop": 7},
        {"codec": 1, "reason": Reason.BUDGET},
        {"codec": 1, "reason": Reason.PROTECTED},
    ],
    ids=str,
)
def test_pages_that_the_header_lacks(wrong):
    """One beyond each number; and a reason where the codec is not raw."""
    coverage = Coverage(read(PLAIN))
    assert refused(coverage.spec, page(**wrong)) == "E304"
    assert refused(coverage.add, page(**wrong)) == "E304"
    assert coverage.pages == 0


def test_a_role_that_a_layer_lacks():
    """Values of a layer that has keys alone; a batch entry below the last is there."""
    coverage = Coverage(read(RAGGED))
    assert refused(coverage.spec, page(V, layer=2, stop=1, head_set=0)) == "E304"
    assert coverage.spec(page(batch=1, layer=2, stop=1, head_set=0)).tokens == 1
    assert refused(coverage.spec, page(layer=1, stop=1, head_set=0)) == "E304"


def test_the_largest_page():
    """2^26 bytes, and not one token more: one head of four F16 channels."""
    tokens = 1 << 23
    coverage = Coverage(read(changed(PLAIN, parts__0__tokens=tokens + 1)))
    assert coverage.spec(page(stop=tokens, head_set=0)).nbytes == 1 << 26
    assert refused(coverage.spec, page(stop=tokens + 1, head_set=0)) == "E306"


def parts_of(**unlike):
    """The layers of PLAIN as two parts, of which the second is changed."""
    first, second = (copy.deepcopy(PLAIN["content"]["parts"][0]) for _ in range(2))
    first["layers"], second["layers"] = [[0, 1]], [[1, 2]]
    for name, value in unlike.items():
        *way, last = name.split("__")
        holder = second
        for step in way:
            holder = holder[step]
        holder[last] = value
    return changed(PLAIN, parts=[first, second])


@pytest.mark.parametrize(
    ("unlike", "roles"),
    [
        ({}, [K, V]),
        ({"batch": 2}, []),
        ({"kv_heads": 3}, []),
        ({"tokens": 7}, []),
        ({"key__head_dim": 5}, [V]),
        ({"value__dtype": "BF16"}, [K]),
        ({"value": None}, [K]),
        ({"layers": [[2, 3]]}, []),
    ],
    ids=str,
)
def test_pages_hold_layers_that_are_alike(unlike, roles):
    """In batch, tokens and heads, and in what is particular to the page's role; no gap between."""
    coverage = Coverage(read(parts_of(**unlike)))
    for role in (K, V):
        if role in roles:
            assert coverage.spec(page(role, layers=2)).heads == 4
        else:
            assert refused(coverage.spec, page(role, layers=2)) == "E304"


def test_the_most_layers_of_a_page():
    """4,096, and not one more."""
    coverage = Coverage(read(changed(PLAIN, parts__0__layers=[[0, 5000]])))
    assert coverage.spec(page(layers=4096)).heads == 8192
    assert refused(coverage.spec, page(layers=4097)) == "E304"


def test_the_largest_page_of_several_layers():
    """The bytes of all layers count."""
    coverage = Coverage(read(changed(PLAIN, parts__0__tokens=(1 << 22) + 1)))
    assert coverage.spec(page(stop=1 << 22, head_set=0, layers=2)).nbytes == 1 << 26
    assert refused(coverage.spec, page(stop=(1 << 22) + 1, head_set=0, layers=2)) == "E306"


FOUR = changed(PLAIN, parts__0__layers=[[0, 4]], parts__0__value=None)
GROUPED = [
    page(head_set=0, stop=3, layers=2),
    page(head_set=1, stop=2, layers=2),
    page(head_set=1, start=2, stop=3, layers=2),
    page(start=3, layers=2),
    page(layer=2),
    page(layer=3),
]


@pytest.mark.parametrize(
    ("records", "count"),
    [
        (GROUPED, None),
        ([page(layers=4)], None),
        ([page(), page(layer=1, layers=3)], None),
        ([page(layers=3), page(layer=3)], None),
        # a layer in two groups, in none, in a group of another length
        ([page(layers=2), page(layer=1), page(layer=2, layers=2)], 1),
        ([page(layers=3), page(layer=2, layers=2)], 1),
        ([page(layers=2), page(layer=1, layers=3)], 1),
        ([page(layers=2), page(layer=3)], 1),
        ([page(layer=1, layers=3)], 0),
        ([page(layers=3)], 1),
        ([page(stop=3, layers=4), page(start=3, layers=2), page(layer=2, start=3, layers=2)], 1),
        ([page(stop=3, layers=2), page(start=3, layers=4)], 1),
        ([page(stop=3), page(layer=0, start=3, layers=4)], 1),
        # twice, in another order, tokens or heads left out
        ([page(layers=4), page(layers=4)], 1),
        ([page(layer=2, layers=2), page(layers=2)], 0),
        ([page(start=3, layers=4), page(stop=3, layers=4)], 0),
        ([page(stop=5, layers=4)], 1),
        ([page(head_set=0, layers=2), page(layer=2, layers=2)], 1),
    ],
    ids=range(18),
)
def test_groups_of_layers(records, count):
    """Each layer lies in one group, whose pages all have the same layers."""
    expected = (len(records), None) if count is None else (count, "E304")
    assert taken(FOUR, records) == expected


def taken(header, records):
    """How many pages are taken, and whether that is all; any refusal is E304."""
    coverage = Coverage(read(header))
    try:
        for record in records:
            coverage.add(record)
        coverage.finish()
    except ContainerError as error:
        return coverage.pages, error.error_id
    return coverage.pages, None


GROUPS = [(role, layer) for role in (K, V) for layer in (0, 1)]
WHOLE = [page(role, layer=layer) for role, layer in GROUPS]
SPLIT = [
    page(head_set=0, stop=3),
    page(head_set=1, stop=2),
    page(head_set=1, start=2, stop=3),
    page(start=3),
]


@pytest.mark.parametrize(
    ("records", "count"),
    [
        (WHOLE, None),
        (SPLIT + WHOLE[1:], None),
        ([page(stop=3), page(start=3), *WHOLE[1:]], None),
        ([], 0),
        (WHOLE[:-1], 3),
        (WHOLE[1:], 0),
        ([*WHOLE, WHOLE[-1]], 4),
        ([*WHOLE, WHOLE[0]], 4),
        ([WHOLE[0], WHOLE[0], *WHOLE[1:]], 1),
        ([WHOLE[1], WHOLE[0], *WHOLE[2:]], 0),
        ([WHOLE[0], WHOLE[2], WHOLE[1], WHOLE[3]], 1),
        ([WHOLE[0], *WHOLE[2:]], 1),
        # tokens or heads left out, at the start, between, and at the end
        ([page(start=1), *WHOLE[1:]], 0),
        ([page(stop=5), *WHOLE[1:]], 1),
        ([page(stop=2), page(start=3), *WHOLE[1:]], 1),
        ([page(head_set=0), *WHOLE[1:]], 1),
        ([*WHOLE[:3], page(V, layer=1, stop=5)], 4),
        # twice
        ([page(stop=4), page(start=3), *WHOLE[1:]], 1),
        ([page(head_set=0), page(), *WHOLE[1:]], 1),
        # in another order: first token before head set, both ascending
        ([SPLIT[1], SPLIT[0], *SPLIT[2:], *WHOLE[1:]], 1),
        ([page(start=3), page(stop=3), *WHOLE[1:]], 0),
        ([page(head_set=0, stop=3), page(head_set=0, start=3), page(head_set=1), *WHOLE[1:]], 2),
    ],
    ids=range(22),
)
def test_sequences(records, count):
    """Taken to the end, or up to the first page that may not be there."""
    expected = (len(records), None) if count is None else (count, "E304")
    assert taken(PLAIN, records) == expected


def test_batch_entries_and_ragged_parts():
    """Role, batch entry, layer; each part by its own tokens, and roles that are not there."""
    keys = [page(batch=batch, layer=layer, stop=stop, head_set=0)
            for batch in (0, 1) for layer, stop in ((0, 3), (2, 1))]  # fmt: skip
    values = [page(V, batch=batch, stop=3, head_set=0) for batch in (0, 1)]
    assert taken(RAGGED, keys + values) == (6, None)
    by_layer = [keys[0], keys[2], keys[1], keys[3], *values]
    assert taken(RAGGED, by_layer) == (1, "E304")
    assert taken(RAGGED, values + keys) == (0, "E304")
    unlike = changed(RAGGED, parts__1__batch=1)
    assert taken(unlike, [*keys[:3], *values]) == (5, None)
    assert taken(unlike, keys + values) == (3, "E304")


def test_nothing_promised():
    """Without parts there is nothing to cover."""
    assert taken(changed(PLAIN, parts=[]), []) == (0, None)


LOST = {"header_digest": "blake3:" + "0" * 64, "content_root": None}
LOST |= {"files": [], "tables": [], "tensors": []}


def gaps(header, records):
    """What a partial container lacks that has these pages."""
    coverage = Coverage(read(changed(header, partial=LOST)))
    for record in records:
        coverage.add(record)
    coverage.finish()
    return [(gap.role, gap.batch, gap.layer, gap.heads, gap.start, gap.stop)
            for gap in coverage.gaps]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "lacking"),
    [
        (WHOLE, []),
        (SPLIT + WHOLE[1:], []),
        (WHOLE[1:], [(K, 0, 0, ((0, 2),), 0, 6)]),
        (WHOLE[:-1], [(V, 0, 1, ((0, 2),), 0, 6)]),
        ([WHOLE[0], WHOLE[3]], [(K, 0, 1, ((0, 2),), 0, 6), (V, 0, 0, ((0, 2),), 0, 6)]),
        ([], [(role, 0, layer, ((0, 2),), 0, 6) for role, layer in GROUPS]),
        ([page(start=1), *WHOLE[1:]], [(K, 0, 0, ((0, 2),), 0, 1)]),
        ([page(stop=5), *WHOLE[1:]], [(K, 0, 0, ((0, 2),), 5, 6)]),
        ([page(stop=2), page(start=3), *WHOLE[1:]], [(K, 0, 0, ((0, 2),), 2, 3)]),
        ([page(head_set=0), *WHOLE[1:]], [(K, 0, 0, ((1, 2),), 0, 6)]),
        ([page(stop=2, head_set=1), page(start=4), *WHOLE[1:]],
         [(K, 0, 0, ((0, 1),), 0, 4), (K, 0, 0, ((1, 2),), 2, 4)]),
        ([page(stop=2, head_set=1), *WHOLE[1:]],
         [(K, 0, 0, ((0, 1),), 0, 6), (K, 0, 0, ((1, 2),), 2, 6)]),
        ([*WHOLE[:3], page(V, layer=1, stop=5)], [(V, 0, 1, ((0, 2),), 5, 6)]),
    ],
    ids=range(13),
)  # fmt: skip
def test_gaps(records, lacking):
    """Rows in no page, by layer, heads that lack the same tokens together."""
    assert gaps(PLAIN, records) == lacking


@pytest.mark.parametrize(
    ("records", "lacking"),
    [
        (GROUPED, []),
        (GROUPED[4:], [(K, 0, layer, ((0, 2),), 0, 6) for layer in (0, 1)]),
        (GROUPED[:4], [(K, 0, layer, ((0, 2),), 0, 6) for layer in (2, 3)]),
        ([page(start=1, stop=2, layers=3)],
         [*((K, 0, layer, ((0, 2),), start, stop)
            for layer in range(3) for start, stop in ((0, 1), (2, 6))),
          (K, 0, 3, ((0, 2),), 0, 6)]),
        ([page(layer=1, head_set=1, layers=2)],
         [(K, 0, 0, ((0, 2),), 0, 6), *((K, 0, layer, ((0, 1),), 0, 6) for layer in (1, 2)),
          (K, 0, 3, ((0, 2),), 0, 6)]),
    ],
    ids=range(5),
)  # fmt: skip
def test_gaps_of_groups(records, lacking):
    """Each layer by itself, in its order."""
    assert gaps(FOUR, records) == lacking


def test_gaps_of_groups_are_counted(monkeypatch):
    """Once for each layer."""
    for most, good in ((4, True), (3, False)):
        monkeypatch.setattr(limits, "MAX_RANGES", most)
        if good:
            assert len(gaps(FOUR, [page(head_set=0, layers=4)])) == 4
            continue
        with pytest.raises(ContainerError) as refusal:
            gaps(FOUR, [page(head_set=0, layers=4)])
        assert refusal.value.error_id == "E306"


@pytest.mark.parametrize(
    "records",
    [
        [page(layers=2), page(layer=1)],
        [page(layers=2), page(layer=1, layers=3)],
        [page(layer=2), page(layers=2)],
        [page(stop=3, layers=2), page(start=3)],
        [page(stop=4, layers=2), page(start=3, layers=2)],
    ],
)
def test_partial_groups(records):
    """What overlaps is refused in a partial container too, and changes nothing."""
    coverage = Coverage(read(changed(FOUR, partial=LOST)))
    coverage.add(records[0])
    assert refused(coverage.add, records[1]) == "E304"
    coverage.add(page(layer=3))
    coverage.finish()
    whole = gaps(FOUR, [records[0], page(layer=3)])
    told = [(gap.role, gap.batch, gap.layer, gap.heads, gap.start, gap.stop)
            for gap in coverage.gaps]  # fmt: skip
    assert told == whole


@pytest.mark.parametrize(("layers", "good"), [(16, True), (17, False)])
def test_gaps_of_many_heads(layers, good):
    """Up to 2^20 ranges of heads are told: a page of each other head leaves 2^15."""
    header = changed(
        PLAIN, parts__0__kv_heads=1 << 16, parts__0__layers=[[0, layers]],
        head_sets=[list(range(0, 1 << 16, 2))],
    )  # fmt: skip
    records = [page(role, layer=layer, head_set=0) for role in (K, V) for layer in range(layers)]
    if good:
        assert {len(heads) for *_, heads, _, _ in gaps(header, records)} == {1 << 15}
        return
    with pytest.raises(ContainerError) as refusal:
        gaps(header, records)
    assert refusal.value.error_id == "E306"


def test_gaps_are_counted(monkeypatch):
    """Ranges of heads of all gaps together; the limit itself is allowed."""
    assert limits.MAX_RANGES == 1 << 20
    lacking = [page(head_set=0), *WHOLE[1:]], [page(stop=2, head_set=1), page(start=4), *WHOLE[1:]]
    for most, records, good in ((1, 0, True), (0, 0, False), (2, 1, True), (1, 1, False)):
        monkeypatch.setattr(limits, "MAX_RANGES", most)
        if good:
            assert gaps(PLAIN, lacking[records])
            continue
        with pytest.raises(ContainerError):
            gaps(PLAIN, lacking[records])


def test_rows_of_a_gap():
    """Heads in all ranges, times tokens."""
    assert Gap(K, 0, 0, ((0, 2), (5, 6)), 3, 7).rows == 12


@pytest.mark.parametrize(
    ("records", "count"),
    [
        ([WHOLE[0], WHOLE[0]], 1),
        ([WHOLE[1], WHOLE[0]], 1),
        ([WHOLE[2], WHOLE[1]], 1),
        ([WHOLE[3], WHOLE[0]], 1),
        ([page(stop=4), page(start=3)], 1),
        ([page(start=3), page(stop=3)], 1),
        ([page(stop=2, head_set=1), page(stop=2, head_set=0)], 1),
    ],
)
def test_partial_sequences(records, count):
    """Pages still follow each other, and hold nothing twice; a refused one changes nothing."""
    coverage = Coverage(read(changed(PLAIN, partial=LOST)))
    for record in records[:count]:
        coverage.add(record)
    before = coverage.gaps[:]
    assert refused(coverage.add, records[count]) == "E304"
    assert (coverage.pages, coverage.gaps) == (count, before)
