"""Labels from one convention to another: regions to the numbers that another data set or program expects."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import CAVITY, CONVENTIONS, REGIONS, check_convention
from napari_braintumor.engine.errors import DataError


def values_from_regions(
    regions: Mapping[str, NDArray[np.bool_]], convention: str
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return the numbers of a convention for regions; the inverse of `reference_from_values`.

    Where a convention distinguishes more tissues than regions do, as BraTS 2013 does in the core, the first of its
    numbers stands for all of them.

    Parameters
    ----------
    regions
        bool ``(Z, Y, X)`` for each region.
    convention
        A key of `CONVENTIONS`.

    Returns
    -------
    tuple
        uint8 ``(Z, Y, X)``, and notes on what the convention cannot say, one sentence each.

    Raises
    ------
    DataError
        If there is no such convention, or the regions lack one that it needs: then its numbers would say more than is
        known.
    """
    check_convention(convention)
    meaning = CONVENTIONS[convention]
    lacking = [name for name in meaning.regions if name not in regions and name != CAVITY]
    if lacking:
        raise DataError(
            f"The labels do not say what is {' or '.join(lacking)}, which '{convention}' distinguishes "
            f"({meaning.meaning}). Choose a convention of their regions: {', '.join(regions)}."
        )
    notes = []
    values = np.zeros(next(iter(regions.values())).shape, np.uint8)
    drawn = [region for region in REGIONS if region.name in meaning.regions and region.name in regions]
    for region, inner in zip(drawn, [*drawn[1:], None], strict=True):
        members = meaning.regions[region.name]
        within = meaning.regions[inner.name] if inner is not None and inner.nested else ()
        own = [value for value in members if value not in within] or [1]
        values[regions[region.name]] = own[0]
        if len(own) > 1:
            notes.append(
                f"'{convention}' has {len(own)} numbers for what is only {region.name} ({', '.join(map(str, own))}); "
                f"all of it became {own[0]}."
            )
    notes += [
        f"'{convention}' has no number for {name} by itself; it was left out or is part of others."
        for name in regions
        if name not in meaning.regions and regions[name].any()
    ]
    return values, tuple(notes)
