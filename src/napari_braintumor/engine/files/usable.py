"""Find the cases among files, and say which can be used for training, or why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.reading import read_reference


@dataclass(frozen=True)
class CaseReport:
    """A case, and whether it can be used for training.

    Attributes
    ----------
    case
        The files of the case.
    shape
        Voxels of its mask along Z, Y, X; None if it could not be read.
    regions
        The regions that its mask defines.
    problem
        Why it cannot be used for training, in one sentence; empty if it can.
    """

    case: CaseFiles
    shape: tuple[int, int, int] | None = None
    regions: tuple[str, ...] = ()
    problem: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of its images."""
        return tuple(image.modality for image in self.case.images)


def survey_cases(
    paths: Sequence[Path], modalities: Sequence[str] = (), regions: Sequence[str] = ()
) -> Iterator[CaseReport]:
    """Check every case among files. Masks are read; images only as far as needed to compare their grids.

    Parameters
    ----------
    paths
        Case folders, or folders that contain them.
    modalities, regions
        What is to be trained; a case needs at least one of each. If empty, every case is accepted.

    Yields
    ------
    CaseReport
        One for each case, as soon as it has been checked.

    Raises
    ------
    DataError
        If no case is found.
    """
    for case in find_cases(paths):
        if case.problem is not None:
            yield CaseReport(case, problem=case.problem)
            continue
        has = [image.modality for image in case.images]
        if modalities and not set(has) & set(modalities):
            yield CaseReport(case, problem=f"It has {', '.join(has)}, but {' or '.join(modalities)} is needed.")
            continue
        if not case.reference:
            yield CaseReport(case, problem="It has no mask.")
            continue
        try:
            reference = read_reference(case)
        except DataError as error:
            yield CaseReport(case, problem=str(error))
            continue
        assert reference is not None
        defined = tuple(reference.regions)
        shape = next(iter(reference.regions.values())).shape
        problem = ""
        if regions and not set(defined) & set(regions):
            problem = f"Its mask defines {', '.join(defined)}, but {' or '.join(regions)} is needed."
        yield CaseReport(case, shape, defined, problem)
