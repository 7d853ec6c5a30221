"""objects: the contract's objects by their schema marker.

Spec: formats/contract.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from kvq_cli.contract import (
    calibration_summary,
    geometry,
    kv_profile,
    layout,
    shape,
    vector_profile,
)
from kvq_cli.contract.calibration_summary import KvCalibrationSummaryV1
from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.layout import KvCacheLayoutV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.errors import ProfileError

ContractObject: TypeAlias = (
    KvTensorShapeV1
    | KvCacheLayoutV1
    | KvPageGeometryV1
    | FibQuantProfileV1
    | KvCompressionProfileV1
    | KvCalibrationSummaryV1
)

OBJECTS: Final[Mapping[str, type[ContractObject]]] = {
    shape.SCHEMA: KvTensorShapeV1,
    layout.SCHEMA: KvCacheLayoutV1,
    geometry.SCHEMA: KvPageGeometryV1,
    vector_profile.SCHEMA: FibQuantProfileV1,
    kv_profile.SCHEMA: KvCompressionProfileV1,
    calibration_summary.SCHEMA: KvCalibrationSummaryV1,
}


def read_object(value: Mapping[str, Any]) -> ContractObject:
    """The object that its `schema_version` names; ProfileError where it is none or not valid."""
    marker = value.get("schema_version")
    if not isinstance(marker, str) or marker not in OBJECTS:
        known = ", ".join(OBJECTS)
        raise ProfileError("E401", f"unknown schema; known are {known}", "/schema_version")
    return OBJECTS[marker].from_json(value)
