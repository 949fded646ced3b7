"""Names of the files of a map version (see `core.paths` for the directories above it)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

type Layer = Literal["classes", "probabilities", "confidence"]
LAYERS: Final[tuple[Layer, ...]] = ("classes", "probabilities", "confidence")


@dataclass(frozen=True, slots=True)
class MapDir:
    """One version of a map, or the attempt at one."""

    root: Path

    def layer(self, layer: Layer, raster: str) -> Path:
        """One GeoTIFF; `raster` is an EPSG code, or the id of a tile without neighbours."""
        return self.root / f"{layer}-{raster}.tif"

    def strip(self, unit: str) -> Path:
        """The staged rows of a raster; only attempts have them."""
        return self.root / "staging" / "strips" / f"{unit}.tif"

    @property
    def areas(self) -> Path:
        """Mapped area per class."""
        return self.root / "areas.csv"

    @property
    def facts(self) -> Path:
        """What the map was made of."""
        return self.root / "map.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.root / "report.html"
