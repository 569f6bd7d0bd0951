"""How a tumor has responded between two visits, by the thresholds of RANO: what images alone can say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari_braintumor.engine.anatomy import ENHANCING, WHOLE
from napari_braintumor.engine.measuring.measurements import Measured

MEASURABLE_MM = 10.0
"""Both diameters of a lesion that counts are at least so long."""

MOST_TARGETS = 5
"""The largest lesions whose products are added up."""

PRODUCT_RULE = (
    f"Sum of the products of diameters of up to {MOST_TARGETS} lesions of at least {MEASURABLE_MM:g} x "
    f"{MEASURABLE_MM:g} mm: PD from +25 % or a new lesion of that size, PR from -50 %, CR if nothing is left, else SD "
    "(RANO, Wen et al. 2010 and 2023). Only images count here: not steroids, the clinical state or confirmation by a "
    "later scan, and the earlier visit is taken as the reference."
)
VOLUME_RULE = "Volume: PD from +40 %, PR from -65 %, CR if nothing is left, else SD (RANO 2.0, Wen et al. 2023)."


@dataclass(frozen=True)
class Assessment:
    """The change of a region between two visits.

    Attributes
    ----------
    region
        The region.
    category
        CR, PR, SD or PD by `PRODUCT_RULE`; empty if neither visit shows the region.
    reason
        Why, with the numbers.
    by_volume
        CR, PR, SD or PD by `VOLUME_RULE`.
    products_mm2
        The sums of products at both visits.
    volumes_ml
        The volumes at both visits.
    """

    region: str
    category: str
    reason: str
    by_volume: str
    products_mm2: tuple[float, float]
    volumes_ml: tuple[float, float]


def choose_region(earlier: Sequence[Measured], later: Sequence[Measured]) -> str:
    """Return the region to assess: enhancing tumor if a visit shows any, else the whole tumor or the first one."""
    volumes = {row.region: float(row.values["volume_ml"]) for row in (*earlier, *later) if not row.lesion}
    shown = {row.region for row in (*earlier, *later) if row.values["volume_ml"]}
    return next((name for name in (ENHANCING, WHOLE) if name in shown), next(iter(volumes)))


def assess(
    region: str, earlier: Sequence[Measured], later: Sequence[Measured], added: Sequence[Measured] = ()
) -> Assessment:
    """Assess the change of a region.

    Parameters
    ----------
    region
        The region.
    earlier, later
        The measurements of both visits, see `measure_regions`.
    added
        The measurements of the new lesions.

    Returns
    -------
    Assessment
        The category by the sum of products, and by volume.
    """
    before, after = sum_products(region, earlier), sum_products(region, later)
    small, large = _volume_of(region, earlier), _volume_of(region, later)
    by_volume = _categorize(small, large, more=0.40, less=-0.65)
    sums = f"{before:.0f} to {after:.0f} mm²"
    new = len(_find_targets(region, added))
    if not small and not large:
        category, reason = "", f"neither visit shows {region}"
    elif not large:
        category, reason = "CR", f"no {region} is left"
    elif new:
        category, reason = "PD", f"{new} new lesion{'s' if new > 1 else ''} of at least {MEASURABLE_MM:g} x 10 mm"
    elif not before and after:
        category, reason = "PD", f"now a measurable lesion ({sums})"
    elif not before:
        category, reason = "SD", f"no lesion of {MEASURABLE_MM:g} x 10 mm at either visit"
    else:
        category = _categorize(before, max(after, 1e-9), more=0.25, less=-0.50)
        reason = f"sum of products {after / before - 1:+.0%} ({sums})"
    return Assessment(region, category, reason, by_volume, (before, after), (small, large))


def sum_products(region: str, rows: Sequence[Measured]) -> float:
    """Return the sum of the products of diameters of the largest measurable lesions, in mm²."""
    products = sorted((float(row.values["product_mm2"]) for row in _find_targets(region, rows)), reverse=True)
    return sum(products[:MOST_TARGETS])


def _find_targets(region: str, rows: Sequence[Measured]) -> list[Measured]:
    """Return the measurable lesions of a region; a region of one lesion is that lesion."""
    lesions = [row for row in rows if row.region == region and row.lesion]
    lesions = lesions or [row for row in rows if row.region == region and row.values["volume_ml"]]
    return [row for row in lesions if float(row.values["across_mm"]) >= MEASURABLE_MM]


def _volume_of(region: str, rows: Sequence[Measured]) -> float:
    return next((float(row.values["volume_ml"]) for row in rows if row.region == region and not row.lesion), 0.0)


def _categorize(before: float, after: float, more: float, less: float) -> str:
    if not before:
        return "PD" if after else ""
    if not after:
        return "CR"
    change = round(after / before - 1, 9)  # 14 is 40 % more than 10
    return "PD" if change >= more else "PR" if change <= less else "SD"
