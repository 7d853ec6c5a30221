from kvq_cli.advice import calibrate as calibrate
from kvq_cli.advice import plan_stats as plan_stats
from kvq_cli.advice import suggest as suggest
from kvq_cli.errors import KvqError as KvqError
from kvq_cli.growing import CacheWriter as CacheWriter
from kvq_cli.growing import CapacityError as CapacityError
from kvq_cli.pipeline import compress as compress
from kvq_cli.pipeline import decompress as decompress
from kvq_cli.pipeline import recover as recover
from kvq_cli.pipeline import stats as stats
from kvq_cli.pipeline import verify as verify
from kvq_cli.profile import load_profile as load_profile
from kvq_cli.steps.describe import inspect as inspect
from kvq_cli.steps.expect import Expected as Expected
from kvq_cli.steps.geometry import Geometry as Geometry
from kvq_cli.steps.opened import Container as Container
from kvq_cli.steps.opened import open_container as open_container
from kvq_cli.steps.select import Selection as Selection
from kvq_cli.words import DType as DType
from kvq_cli.words import Role as Role

__version__: str
__all__ = [
    "CacheWriter",
    "CapacityError",
    "Container",
    "DType",
    "Expected",
    "Geometry",
    "KvqError",
    "Role",
    "Selection",
    "__version__",
    "calibrate",
    "compress",
    "decompress",
    "inspect",
    "load_profile",
    "open_container",
    "plan_stats",
    "recover",
    "stats",
    "suggest",
    "verify",
]
