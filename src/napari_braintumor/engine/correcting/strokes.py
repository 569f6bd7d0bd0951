"""Strokes: what a person says about a few voxels, by drawing over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError, SettingsError

Triple = tuple[float, float, float]

SMALLEST_STEP_VOX = 0.5
"""A stroke is followed in steps of at most half a voxel, so that it has no gaps."""


@dataclass(frozen=True)
class Stroke:
    """A stroke over a scan: the tissue under it belongs to a region, or to none.

    Attributes
    ----------
    region
        Name of the region that the tissue belongs to; None if it belongs to no region of the tumor.
    points
        The way of the pen as voxels (Z, Y, X) of the labels, fractions allowed; one point is a click.
    radius_mm
        Half the width of the pen. The voxel under each point counts even if the pen is thinner.
    innermost
        True if the tissue is in no region further inside: a stroke of edema says that it is not core. False says only
        that it is in the region.
    """

    region: str | None
    points: tuple[Triple, ...]
    radius_mm: float = 2.0
    innermost: bool = True

    def __post_init__(self) -> None:
        if not self.points:
            raise DataError("A stroke has no points. Expected at least one. Draw it again.")
        if not np.isfinite(self.points).all():
            raise DataError("A stroke has points that are not numbers. Draw it again.")
        if not 0 <= self.radius_mm <= 100:
            raise SettingsError(f"The pen's radius is {self.radius_mm:g} mm. Expected 0 to 100 mm.")

    def find_voxels(self, shape: tuple[int, int, int], spacing: Triple) -> NDArray[np.intp]:
        """Return the voxels under the stroke.

        Parameters
        ----------
        shape
            Voxels of the labels along Z, Y, X.
        spacing
            Their size in mm along Z, Y, X.

        Returns
        -------
        array
            ``(n, 3)``, indices Z, Y, X in ascending order; voxels outside the labels are left out.
        """
        way = follow(self.points)
        sides = np.asarray(spacing)
        reach = np.floor(self.radius_mm / sides + SMALLEST_STEP_VOX).astype(int)
        around = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 3)
        nearest = np.rint(way).astype(np.intp)
        voxels = (nearest[:, None] + around).reshape(-1, 3)
        away_mm = np.linalg.norm((voxels.reshape(len(way), -1, 3) - way[:, None]) * sides, axis=-1)
        under = (away_mm <= self.radius_mm) | (around == 0).all(1)
        voxels = voxels[under.ravel()]
        voxels = voxels[((voxels >= 0) & (voxels < shape)).all(1)]
        return np.unique(voxels, axis=0)


def describe_strokes(strokes: Iterable[Stroke]) -> list[dict[str, Any]]:
    """Return strokes for a record: JSON values only."""
    return [
        {
            "region": stroke.region,
            "points_zyx": [[round(float(at), 3) for at in point] for point in stroke.points],
            "radius_mm": round(float(stroke.radius_mm), 3),
            "innermost": stroke.innermost,
        }
        for stroke in strokes
    ]


def read_strokes(described: Iterable[Mapping[str, Any]]) -> tuple[Stroke, ...]:
    """Return the strokes that `describe_strokes` described.

    Returns
    -------
    tuple of Stroke
        In the order in which they were drawn.

    Raises
    ------
    DataError
        If something else is described.
    SettingsError
        If a pen has an impossible radius.
    """
    try:
        return tuple(
            Stroke(
                region=None if each["region"] is None else str(each["region"]),
                points=tuple((float(z), float(y), float(x)) for z, y, x in each["points_zyx"]),
                radius_mm=float(each["radius_mm"]),
                innermost=bool(each["innermost"]),
            )
            for each in described
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "The strokes in the record are not as this program writes them. The labels can be used without. Draw the "
            "strokes again."
        ) from error


def follow(points: Sequence[Triple]) -> NDArray[np.float64]:
    """Return points on a line through others, at most half a voxel apart: ``(n, 3)``."""
    corners = np.asarray(points, np.float64)
    pieces = [corners[:1]]
    for start, stop in pairwise(corners):
        steps = int(np.ceil(np.abs(stop - start).max() / SMALLEST_STEP_VOX))
        pieces.append(start + (stop - start) * np.arange(1, steps + 1)[:, None] / max(1, steps))
    return np.concatenate(pieces)
