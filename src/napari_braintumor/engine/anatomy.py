"""Modalities, regions, labels and label conventions, with their names and colors.

To add a region, add a row to `REGIONS`, and add the file values that make it to `CONVENTIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from napari_braintumor.engine.errors import DataError

# ------------------------------------------------------------------------------------------------------ modalities

MODALITY_WORDS: Mapping[str, str] = {
    "T1": "t1 t1n t1w t1wi t1pre t1nativ t1native",
    "T1ce": (
        "t1c t1ce t1gd t1gad t1gado t1km t1post t1wce t1cw t1wc t1wgd t1contrast t1postgd t1postcontrast t1wpost "
        "t1kontrast t1cegd t1wkm t1wgad ct1 ct1w cet1 cet1w gdt1"
    ),
    "T2": "t2 t2w t2wi",
    "FLAIR": "flair t2f fla t2flair flairw darkfluid t2darkfluid",
}
"""The known MRI sequences, in the order in which they are offered, each with the words that name it."""

MODALITIES = tuple(MODALITY_WORDS)

MODALITY_OF: Mapping[str, str] = {word: name for name, words in MODALITY_WORDS.items() for word in words.split()}
"""The modality that each of those words names, in lower case."""

# --------------------------------------------------------------------------------------------- regions and labels

_OLDER_LABEL_NAMES = {"necrotic core": "necrotic / non-enhancing core"}
"""Label names on cards written by earlier versions: BraTS counts non-enhancing core under the same number."""


class Region(BaseModel):
    """A target region of a network, and how it is painted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    label: Annotated[int, Field(ge=1, le=255)]
    label_name: Annotated[str, AfterValidator(lambda name: _OLDER_LABEL_NAMES.get(name, name))]
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
    nested: bool = Field(
        True,
        description="Whether the region lies within the nested regions listed before it; False if it stands alone.",
    )
    least_ml: Annotated[float, Field(ge=0, le=1000)] = Field(
        0.0, description="If less than this is found in a case, all of it counts as the region around it."
    )


WHOLE, CORE, ENHANCING, CAVITY = "whole tumor", "tumor core", "enhancing tumor", "resection cavity"

REGIONS: tuple[Region, ...] = (
    Region(name=WHOLE, label=2, label_name="edema", color="#4fae5b"),
    Region(name=CORE, label=1, label_name="necrotic / non-enhancing core", color="#d64550"),
    Region(name=ENHANCING, label=3, label_name="enhancing tumor", color="#f2c14e"),
    Region(name=CAVITY, label=4, label_name="resection cavity", color="#4aa3df", nested=False),
)
"""The known regions, in the order in which they are painted: a later region covers an earlier one.

Nested regions come first, outermost first; regions that do not nest cover them. Each region has its own label, so the
final label of a voxel shows which regions contain it. The numbers are those of BraTS 2023 and 2024.
"""

REGION_NAMES = tuple(region.name for region in REGIONS)

GLIOMA_REGIONS = tuple(region for region in REGIONS if region.nested)
"""The nested regions of BraTS. A model predicts these unless its card says otherwise."""

LABELS: Mapping[int, str] = {region.label: region.label_name for region in REGIONS}
"""The meaning of each integer in a label layer."""

LABEL_COLORS: Mapping[int, str] = {region.label: region.color for region in REGIONS}

EXTRA_COLORS = ("#38bdf8", "#a855f7", "#ec4899", "#ffffff")
"""Colors for labels that have none of their own."""

_OTHER_COLOR = "#8f7fd6"


def count_nested(regions: Sequence[Region]) -> int:
    """Return how many of a model's regions are nested; these come first."""
    return sum(region.nested for region in regions)


def labels_by_region(regions: Sequence[Region]) -> dict[str, tuple[int, ...]]:
    """Return the labels that make up each region once all regions are painted in order, its own label first.

    Parameters
    ----------
    regions
        In painting order.

    Returns
    -------
    dict
        For a nested region, its label and those of all nested regions after it. For any other region, its own label.
    """
    return {
        region.name: (region.label, *(inner.label for inner in regions[number:] if region.nested and inner.nested))
        for number, region in enumerate(regions, start=1)
    }


REGION_LABELS: Mapping[str, tuple[int, ...]] = labels_by_region(REGIONS)
"""The labels that together make up each region of the table."""

REGION_WORDS: Mapping[str, frozenset[str]] = {
    WHOLE: frozenset({"whole tumor", "whole tumour", "wt"}),
    CORE: frozenset({"tumor core", "tumour core", "tc"}),
    ENHANCING: frozenset({"enhancing tumor", "enhancing tumour", "et", "gd-enhancing tumor"}),
    CAVITY: frozenset({"resection cavity", "cavity", "rc"}),
}
"""Names that other programs use for a region, in lower case."""

LABEL_WORDS: Mapping[int, frozenset[str]] = {
    1: frozenset(
        {
            "necrotic core",
            "necrosis",
            "ncr",
            "net",
            "netc",
            "ncr/net",
            "non-enhancing tumor core",
            "necrotic tumor core",
        }
    ),
    2: frozenset({"edema", "ed", "snfh", "peritumoral edema", "oedema"}),
    3: REGION_WORDS[ENHANCING],
    4: REGION_WORDS[CAVITY],
}
"""Names that other programs use for the tissue of a label, in lower case."""


def find_region(name: str, number: int = 0) -> Region:
    """Return a region by name. A region that is not in the table gets label 10 + `number`, its place in a list."""
    known = next((region for region in REGIONS if region.name == name), None)
    return known or Region(name=name, label=10 + number, label_name=name, color=_OTHER_COLOR)


def labels_from_regions(regions: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Paint regions into one label array, in the order of `REGIONS`."""
    labels = np.zeros(next(iter(regions.values())).shape, np.uint8)
    for region in REGIONS:
        if region.name in regions:
            labels[regions[region.name]] = region.label
    return labels


def region_from_labels(labels: NDArray[np.integer[Any]], region: str) -> NDArray[np.bool_]:
    """Return the mask of a region (a key of `REGION_LABELS`); the inverse of `labels_from_regions`."""
    return np.isin(labels, REGION_LABELS[region])


def name_labels(regions: Iterable[str]) -> dict[int, str]:
    """Name the labels of painted regions. Label 2 is called edema only if the core inside is known too."""
    painted = set(regions)
    inner = {outer.name: inner.name for outer, inner in pairwise(GLIOMA_REGIONS)}
    return {
        region.label: region.name if inner.get(region.name, region.name) not in painted else region.label_name
        for region in REGIONS
        if region.name in painted
    }


# ------------------------------------------------------------------------------------------------ label conventions


@dataclass(frozen=True)
class Convention:
    """The meaning of the numbers in a mask file.

    Attributes
    ----------
    regions
        The file values that make up each region it defines; ``()`` stands for everything in the mask.
    meaning
        The meaning in words, for users.
    """

    regions: Mapping[str, tuple[int, ...]]
    meaning: str

    @property
    def binary(self) -> bool:
        """Whether the mask marks a single region, whatever its values."""
        return not any(self.regions.values())

    @property
    def values(self) -> frozenset[int]:
        """The values that a mask may contain, including the background."""
        return frozenset({0}.union(*self.regions.values()))


_BRATS_2023 = {WHOLE: (1, 2, 3), CORE: (1, 3), ENHANCING: (3,)}

CONVENTIONS: Mapping[str, Convention] = {
    "brats2012": Convention({WHOLE: (1, 2), CORE: (2,)}, "1 edema, 2 core (BraTS 2012)"),
    "brats2013": Convention({WHOLE: (1, 2, 3, 4), CORE: (1, 3, 4), ENHANCING: (4,)}, "1-4 as in BraTS 2013-16"),
    "brats2017": Convention(
        {WHOLE: (1, 2, 4), CORE: (1, 4), ENHANCING: (4,)}, "1 necrosis, 2 edema, 4 enhancing (BraTS 2017-22)"
    ),
    "brats2023": Convention(_BRATS_2023, "1 necrosis, 2 edema, 3 enhancing (BraTS 2023)"),
    "brats2024": Convention(
        {**_BRATS_2023, CAVITY: (4,)}, "1 necrosis, 2 edema, 3 enhancing, 4 resection cavity (BraTS 2024)"
    ),
    "bratsped2024": Convention(
        {WHOLE: (1, 2, 3, 4), CORE: (1, 2, 3), ENHANCING: (1,)},
        "1 enhancing, 2 non-enhancing, 3 cyst, 4 edema (BraTS-PEDs 2024)",
    ),
    "decathlon": Convention(
        {WHOLE: (1, 2, 3), CORE: (2, 3), ENHANCING: (3,)}, "1 edema, 2 core, 3 enhancing (Decathlon)"
    ),
    "whole": Convention({WHOLE: ()}, "any number: whole tumor"),
    "core": Convention({CORE: ()}, "any number: tumor core"),
    "enhancing": Convention({ENHANCING: ()}, "any number: enhancing tumor"),
}
"""The label conventions by name. This plugin writes the labels of BraTS 2023, plus the cavity of 2024."""


OWN_CONVENTION = "brats2023"
"""The convention of `LABELS`, except for the cavity, which only BraTS 2024 has."""


def check_convention(name: str) -> None:
    """Raise an error for a name that is not a key of `CONVENTIONS`.

    Raises
    ------
    DataError
        If there is no such convention.
    """
    if name not in CONVENTIONS:
        raise DataError(f"There is no label convention '{name}'. Choose one of: {', '.join(CONVENTIONS)}.")


def guess_convention(values: Iterable[int]) -> str | None:
    """Guess the label convention from the values of a mask, if they allow only one.

    Parameters
    ----------
    values
        The values in the mask; 0 is ignored.

    Returns
    -------
    str or None
        ``brats2017`` for 4 with 1 or 2 but without 3. Otherwise None, because several conventions fit and disagree:
        BraTS 2013, BraTS 2023 and the Decathlon use 1, 2 and 3 differently; a lone 4 is enhancing tumor until 2022 and
        cavity or edema in 2024; any other lone value may be any region of a binary mask.
    """
    present = set(values) - {0}
    return "brats2017" if len(present) > 1 and present <= {1, 2, 4} and 4 in present else None


def find_fitting_conventions(values: Iterable[int]) -> list[str]:
    """Return the conventions that define all values of a mask, those with several regions first."""
    present = set(values)
    return [name for name, convention in CONVENTIONS.items() if convention.binary or present <= convention.values]
