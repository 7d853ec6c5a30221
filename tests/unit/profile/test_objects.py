"""Files that hold an object of the contract are read by their schema marker."""

import json
from pathlib import Path

import pytest

from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.errors import ProfileError
from kvq_cli.profile import load_object, load_profile

VECTORS = Path(__file__).parents[3] / "formats" / "vectors" / "contract" / "fibquant.json"
PROVED = json.loads(VECTORS.read_text())
SHAPE = PROVED["shapes"][0]


@pytest.mark.parametrize("members", ["shapes", "page_geometries", "vector_profiles", "kv_profiles"])
def test_an_object_in_a_file_has_the_digest_of_the_vectors(members, tmp_path):
    """Whatever the kind, the digest is that of the reference system."""
    for at, proved in enumerate(each for each in PROVED[members] if "json" in each):
        path = tmp_path / f"{at}.json"
        path.write_text(proved["json"])
        assert load_object(path).digest() == proved["digest"]


def test_a_shape_is_an_object_and_no_profile(tmp_path):
    """load_profile refuses what load_object takes."""
    path = tmp_path / "shape.json"
    path.write_text(SHAPE["json"])
    assert isinstance(load_object(path), KvTensorShapeV1)
    with pytest.raises(ProfileError) as refusal:
        load_profile(path)
    assert (refusal.value.error_id, refusal.value.pointer) == ("E401", "/schema_version")


@pytest.mark.parametrize("marker", ["fib_quant_kv_tensor_shape_v2", 1, None])
def test_an_unknown_marker_is_refused(marker, tmp_path):
    """The message lists the markers that are known."""
    path = tmp_path / "shape.json"
    path.write_text(json.dumps(json.loads(SHAPE["json"]) | {"schema_version": marker}))
    with pytest.raises(ProfileError) as refusal:
        load_object(path)
    assert (refusal.value.error_id, refusal.value.pointer) == ("E401", "/schema_version")
