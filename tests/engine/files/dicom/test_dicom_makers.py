"""Headers as Siemens, GE, Philips and United Imaging write them: what is no T1, T2 or FLAIR is named and left out.

Descriptions say nothing here, as where people name their protocols; only the elements speak. They are those of the
makers' conformance statements and of headers that people published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid

from dicom import Acquisition, Storage, affine_of, with_tags, write_series
from napari_braintumor.engine.files.choosing_series.rows import SeriesRow, judge_series
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.dicom.scanning import scan_series

SHAPE = (6, 12, 10)
VALUES = np.random.default_rng(0).integers(1, 900, SHAPE)
PLACE = affine_of(spacing=(5.0, 1.0, 1.0), shape=SHAPE)

SIEMENS, GE, PHILIPS, UNITED = "SIEMENS MR HEADER", "GEMS_PARM_01", "Philips Imaging DD 001", "Image Private Header"

DIFFUSION, DIFFUSION_MAP = "a diffusion scan", "a map computed from a diffusion scan"
PERFUSION, PHASE = "a perfusion scan, or a map computed from one", "a susceptibility or phase image"
VESSELS, ECHO_PLANAR, SCOUT = "a picture of vessels", "an echo planar scan, as of", "a scout"


@dataclass(frozen=True)
class Made:
    """What a maker's header says beside what every header says."""

    what: str
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "OTHER")
    tags: dict[str, Any] = field(default_factory=dict)
    private: tuple[tuple[int, int, str, str, Any], ...] = ()
    times: tuple[float, float, float | None] = (90.0, 5000.0, None)

    @property
    def acquisition(self) -> Acquisition:
        te, tr, ti = self.times
        plain = Acquisition("kopf 3", 3, echo_time=te, repetition_time=tr, inversion_time=ti, volumetric=False)
        return with_tags(replace(plain, image_type=self.image_type), **self.tags)


def siemens(*kind: str, sequence: str = "*tse2d1_15") -> dict[str, Any]:
    return {"image_type": kind, "tags": {"SequenceName": sequence, "Manufacturer": "SIEMENS"}}


def of(maker: str, group: int, element: int, vr: str, value: Any) -> tuple[tuple[int, int, str, str, Any], ...]:
    return ((group, element, maker, vr, value),)


LEFT_OUT = {
    "siemens b": Made(DIFFUSION, **siemens("ORIGINAL", "PRIMARY", "M", "DIS2D"),
                      private=of(SIEMENS, 0x0019, 0x0C, "IS", "1000")),
    "siemens trace": Made(DIFFUSION, **siemens("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "DIS2D", "NORM")),
    "siemens adc": Made(DIFFUSION_MAP, **siemens("DERIVED", "PRIMARY", "DIFFUSION", "ADC", "DIS2D", "NORM")),
    "siemens fa": Made(DIFFUSION_MAP, **siemens("DERIVED", "PRIMARY", "DIFFUSION", "FA", "DIS2D", "NORM")),
    "siemens diffusion by its sequence": Made(DIFFUSION, **siemens("ORIGINAL", "PRIMARY", "M", "DIS2D",
                                                                  sequence="*ep_b1000#3")),
    "siemens b 0 by its sequence": Made(DIFFUSION, **siemens("ORIGINAL", "PRIMARY", "M", "DIS2D", sequence="*ep_b0")),
    "siemens resolve by its sequence": Made(DIFFUSION, **siemens("ORIGINAL", "PRIMARY", "M", "DIS2D",
                                                                sequence="*re_b1000t")),
    "siemens dynamic susceptibility": Made(ECHO_PLANAR, **siemens("ORIGINAL", "PRIMARY", "M", "DIS2D",
                                                                 sequence="*epfid2d1_128")),
    "siemens perfusion map": Made(PERFUSION, **siemens("DERIVED", "PRIMARY", "PERFUSION", "NONE", "GBP")),
    "siemens relative blood volume": Made(PERFUSION, **siemens("DERIVED", "SECONDARY", "RELCBV")),
    "siemens spin labeling": Made(PERFUSION, **siemens("ORIGINAL", "PRIMARY", "ASL", "NONE", "DIS2D")),
    "siemens spin labeling by its sequence": Made(PERFUSION, **siemens("ORIGINAL", "PRIMARY", "M", "DIS2D",
                                                                      sequence="*tgse3d1_3968")),
    "siemens susceptibility": Made(PHASE, **siemens("ORIGINAL", "PRIMARY", "M", "SWI", "NORM")),
    "siemens phase": Made(PHASE, **siemens("ORIGINAL", "PRIMARY", "P", "DIS2D")),
    "siemens minimum": Made(PHASE, **siemens("DERIVED", "SECONDARY", "MNIP", "SWI")),
    "siemens projection": Made(VESSELS, **siemens("DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP")),
    "ge b": Made(DIFFUSION, private=of(GE, 0x0043, 0x39, "IS", ["1000", "8", "0", "0"])),
    "ge b with a bias": Made(DIFFUSION, private=of(GE, 0x0043, 0x39, "IS", ["1000001000", "8", "0", "0"])),
    "ge large b with a bias": Made(DIFFUSION, private=of(GE, 0x0043, 0x39, "IS", ["1000010000", "0", "0", "0"])),
    "ge b 0 of a diffusion scan": Made(DIFFUSION, private=of(GE, 0x0043, 0x30, "SS", 14)),
    "ge b of the standard": Made(DIFFUSION, tags={"DiffusionBValue": 800.0}),
    "ge phase": Made(PHASE, private=of(GE, 0x0043, 0x2F, "SS", 1)),
    "ge real": Made(PHASE, private=of(GE, 0x0043, 0x2F, "SS", 2)),
    "ge dynamic susceptibility": Made(ECHO_PLANAR, tags={"ScanningSequence": ["EP", "GR"]}),
    "ge spin echo echo planar": Made(ECHO_PLANAR, tags={"ScanningSequence": ["EP", "SE"]}),
    "ge time of flight": Made(VESSELS, tags={"AngioFlag": "Y"}, times=(3.0, 20.0, None)),
    "ge fat": Made("an image of fat", image_type=("DERIVED", "PRIMARY", "DIXON", "FAT"), times=(3.0, 6.0, None)),
    "philips b": Made(DIFFUSION, private=of(PHILIPS, 0x2001, 0x03, "FL", 1000.0)),
    "philips adc": Made(DIFFUSION_MAP, image_type=("DERIVED", "PRIMARY", "ADC_UNSPECIFIED", "ADC", "UNSPECIFIED")),
    "philips phase": Made(PHASE, image_type=("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE")),
    "philips real": Made(PHASE, image_type=("ORIGINAL", "PRIMARY", "R_IR", "R", "IR")),
    "philips velocity": Made(PHASE, image_type=("ORIGINAL", "PRIMARY", "VELOCITY MAP", "P", "PCA")),
    "philips vessels": Made(VESSELS, image_type=("ORIGINAL", "PRIMARY", "M_PCA", "M", "PCA")),
    "philips field map": Made("a map", image_type=("ORIGINAL", "PRIMARY", "B0 MAP", "B0", "UNSPECIFIED")),
    "united b": Made(DIFFUSION, private=of(UNITED, 0x0065, 0x09, "FD", 1000.0)),
}  # fmt: skip

USED = {
    "siemens t2": Made("T2", **siemens("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D")),
    "siemens flair": Made("FLAIR", **siemens("ORIGINAL", "PRIMARY", "M", "NORM", sequence="*tir2d1_16fs"),
                          times=(90.0, 9000.0, 2500.0)),
    "siemens t1": Made("T1", **siemens("ORIGINAL", "PRIMARY", "M", "NORM", "DIS3D", sequence="*tfl3d1_16ns"),
                       times=(2.9, 2000.0, 900.0), private=of(SIEMENS, 0x0019, 0x0C, "IS", "0")),
    "ge t1": Made("T1", private=of(GE, 0x0043, 0x39, "IS", ["0", "8", "0", "0"]), times=(3.0, 8.0, 450.0),
                  tags={"ScanOptions": ["FAST_GEMS", "EDR_GEMS", "SAT_GEMS"], "ScanningSequence": "GR",
                        "AngioFlag": "N"}),
    "ge t2 magnitude": Made("T2", private=of(GE, 0x0043, 0x2F, "SS", 0)),
    "ge t2 with a bias": Made("T2", private=of(GE, 0x0043, 0x39, "IS", ["1000000000", "8", "0", "0"])),
    "philips t1": Made("T1", image_type=("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"), times=(4.0, 8.0, None),
                       tags={"DiffusionBValue": 0.0}, private=of(PHILIPS, 0x2001, 0x03, "FL", 0.0)),
    "philips counts by b": Made("T2", image_type=("ORIGINAL", "PRIMARY", "M_SE", "M", "SE"),
                                private=of(PHILIPS, 0x2001, 0x03, "FL", 0.001)),
    "philips flair": Made("FLAIR", image_type=("ORIGINAL", "PRIMARY", "M_IR", "M", "IR"),
                          times=(120.0, 11000.0, 2800.0)),
}  # fmt: skip


def write(folder: Path, made: Made, syntax: str, edit: Callable[[Dataset], None] | None = None, **storage: Any) -> None:
    for path in write_series(folder, VALUES, PLACE, made.acquisition, Storage(syntax=syntax, **storage)):
        data = pydicom.dcmread(path)
        for group, element, creator, vr, value in made.private:
            data.private_block(group, creator, create=True).add_new(element, vr, value)
        if edit is not None:
            edit(data)
        data.save_as(path)


def rename(data: Dataset, word: str) -> None:
    """Give an image another number than that of the image in its place."""
    data.SOPInstanceUID = generate_uid(entropy_srcs=[data.SOPInstanceUID, word])
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID


def judge(folder: Path) -> tuple[SeriesRow, ...]:
    return judge_series(scan_series([folder]))


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
@pytest.mark.parametrize("made", LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_what_a_maker_says_in_its_own_elements_is_named_and_left_out(tmp_path: Path, made: Made, syntax: str):
    write(tmp_path, made, syntax)
    (row,) = judge(tmp_path)
    assert (row.modality, row.used) == (None, False)
    assert row.why_not.startswith(made.what)
    assert row.guess.other == row.why_not


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
@pytest.mark.parametrize("made", USED.values(), ids=USED.keys())
def test_anatomical_scans_of_every_maker_are_used(tmp_path: Path, made: Made, syntax: str):
    write(tmp_path, made, syntax)
    (row,) = judge(tmp_path)
    assert (row.modality, row.used) == (made.what, True), row.why_not


@pytest.mark.parametrize(
    "tell",
    [
        lambda data: setattr(data, "ImageType", ["ORIGINAL", "PRIMARY", "M", "DIS2D", "MOSAIC"]),
        lambda data: data.private_block(0x0019, SIEMENS, create=True).add_new(0x0A, "US", 36),
    ],
    ids=["ImageType", "NumberOfImagesInMosaic"],
)
def test_a_mosaic_is_refused_in_a_sentence_however_it_is_stated(tmp_path: Path, tell: Callable[[Dataset], None]):
    write(tmp_path, USED["siemens t2"], "explicit", tell)
    (row,) = judge(tmp_path)
    assert not row.usable
    assert row.why_not == (
        "Series 3 'kopf 3' stores volumes as mosaics of slices, as functional and diffusion scans do, and is not read."
    )


def frames_say(**groups: dict[str, Any]) -> Callable[[Dataset], None]:
    """Return what puts functional groups into the first item for all frames."""

    def edit(data: Dataset) -> None:
        for keyword, tags in groups.items():
            item = Dataset()
            for name, value in tags.items():
                setattr(item, name, value)
            setattr(data.SharedFunctionalGroupsSequence[0], keyword, Items([item]))

    return edit


@pytest.mark.parametrize(
    ("tell", "what"),
    [
        (frames_say(MRDiffusionSequence={"DiffusionBValue": 1000.0}), DIFFUSION),
        (frames_say(MRImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "M", "NONE"],
                                              "AcquisitionContrast": "DIFFUSION"}), DIFFUSION),
        (frames_say(MRImageFrameTypeSequence={"FrameType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}), DIFFUSION_MAP),
        (frames_say(MRImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "M", "NONE"],
                                              "AcquisitionContrast": "PERFUSION"}), PERFUSION),
        (frames_say(MRImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "M", "NONE"],
                                              "ComplexImageComponent": "PHASE"}), PHASE),
        (frames_say(MRArterialSpinLabelingSequence={"ASLContext": "LABEL"}), PERFUSION),
        (lambda data: setattr(data, "EchoPlanarPulseSequence", "YES"), ECHO_PLANAR),
        (lambda data: setattr(data, "TimeOfFlightContrast", "YES"), VESSELS),
        (lambda data: setattr(data, "AcquisitionContrast", "T2_STAR"), PHASE),
        (lambda data: setattr(data, "AcquisitionContrast", "PROTON_DENSITY"), "a proton density scan"),
        (lambda data: setattr(data, "AcquisitionContrast", "T2"), None),
        (frames_say(MRDiffusionSequence={"DiffusionDirectionality": "NONE", "DiffusionBValue": 0.0}), None),
    ],
    ids=["b", "contrast diffusion", "adc", "contrast perfusion", "phase", "spin labeling", "echo planar",
         "time of flight", "t2 star", "proton density", "t2", "b 0"],
)  # fmt: skip
def test_enhanced_objects_say_it_in_the_standards_words(
    tmp_path: Path, tell: Callable[[Dataset], None], what: str | None
):
    write(tmp_path, Made("", image_type=("ORIGINAL", "PRIMARY", "M")), "explicit", tell, enhanced=True)
    (row,) = judge(tmp_path)
    assert row.used == (what is None)
    assert what is None or row.why_not.startswith(what)


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_the_image_without_weighting_of_a_diffusion_scan_is_no_t2(tmp_path: Path, enhanced: bool):
    """Both images lie in one series; that without weighting has the times of a T2."""
    for b_value in (0.0, 1000.0):
        made = Made("", image_type=("ORIGINAL", "PRIMARY", "M"), tags={"DiffusionBValue": b_value})
        write(tmp_path / str(b_value), made, "explicit", enhanced=enhanced, suffix=f"_{b_value}.dcm")
        for path in (tmp_path / str(b_value)).iterdir():
            data = pydicom.dcmread(path)
            rename(data, str(b_value))
            data.save_as(path)
    rows = judge(tmp_path)
    assert [row.why_not for row in rows] == [DIFFUSION, DIFFUSION]
    assert [row.series.description for row in rows] == ["kopf 3 (b 0)", "kopf 3 (b 1000)"]


def write_stacks(folder: Path, places: list[np.ndarray], acquisition: Acquisition) -> None:
    """Write stacks of slices into one enhanced file, as Philips does, each with its StackID."""
    (path,) = write_series(folder, VALUES, places[0], acquisition, Storage(enhanced=True))
    whole = pydicom.dcmread(path)
    frames = []
    for number, place in enumerate(places, start=1):
        (other,) = write_series(folder / "other", VALUES, place, acquisition, Storage(enhanced=True))
        data = pydicom.dcmread(other)
        for frame in data.PerFrameFunctionalGroupsSequence:
            frame.FrameContentSequence[0].StackID = str(number)
            frame.PlaneOrientationSequence = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
            frames.append(frame)
        other.unlink()
    del whole.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    whole.PerFrameFunctionalGroupsSequence, whole.NumberOfFrames = Items(frames), len(frames)
    whole.PixelData = b"".join(
        (VALUES + 1000 * number).astype("<u2").tobytes() for number, _ in enumerate(places, start=1)
    )
    whole.save_as(path)


def test_stacks_of_one_file_that_lie_apart_are_series_of_their_own(tmp_path: Path):
    places = [affine_of(spacing=(5.0, 1.0, 1.0), shape=SHAPE, center=(0, 0, up)) for up in (0.0, 83.0)]
    write_stacks(tmp_path, places, Acquisition("t2 tse", 3, echo_time=90.0, repetition_time=5000.0))
    rows = judge(tmp_path)
    assert [row.series.description for row in rows] == ["t2 tse (stack 1)", "t2 tse (stack 2)"]
    assert sum(row.used for row in rows) == 1
    for number, (row, place) in enumerate(zip(rows, places, strict=True), start=1):
        array, grid = read_series(row.series.paths, row.series.channel)
        np.testing.assert_array_equal(array, VALUES + 1000 * number)
        np.testing.assert_allclose(grid.affine_ZYX, place, atol=1e-4)


def test_slabs_of_one_classic_series_are_told_apart_by_their_acquisition(tmp_path: Path):
    for number, up in enumerate((0.0, 83.0), start=1):
        acquisition = Acquisition(
            "t2 tse", 3, echo_time=90.0, repetition_time=5000.0, tags={"AcquisitionNumber": number}
        )
        place = affine_of(spacing=(5.0, 1.0, 1.0), shape=SHAPE, center=(0, 0, up))
        for path in write_series(tmp_path / str(number), VALUES, place, acquisition):
            data = pydicom.dcmread(path)
            rename(data, str(number))
            data.save_as(path)
    rows = judge(tmp_path)
    assert [row.series.description for row in rows] == ["t2 tse (acquisition 1)", "t2 tse (acquisition 2)"]
    assert all(row.usable for row in rows)


def test_a_series_in_three_planes_is_a_scout(tmp_path: Path):
    normals = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    write_stacks(tmp_path, [affine_of(normal, spacing=(5.0, 1.0, 1.0), shape=SHAPE) for normal in normals],
                 Acquisition("kopf 1", 1, echo_time=4.0, repetition_time=8.0))  # fmt: skip
    rows = judge(tmp_path)
    assert [(row.used, row.why_not) for row in rows] == [(False, SCOUT)] * 3


def test_fat_suppression_counts_whoever_states_it(tmp_path: Path):
    for number, options in enumerate((["FS"], ["SAT_GEMS"]), start=1):
        acquisition = Acquisition("t1 km", number, echo_time=9.0, repetition_time=500.0, volumetric=False,
                                  tags={"ScanOptions": options})  # fmt: skip
        write_series(tmp_path / str(number), VALUES, PLACE, acquisition)
    first, second = judge(tmp_path)
    assert (first.used, second.used) == (False, True)
    assert first.why_not == "series 2 't1 km' is not fat-suppressed"
    with_fat = [row.series.number for row in (first, second) if "fat suppressed" in row.series.techniques]
    assert with_fat == [1]


def test_of_a_scan_of_proton_density_and_t2_the_later_echo_is_the_t2(tmp_path: Path):
    for te in (15.0, 95.0):
        acquisition = Acquisition("ax pd t2", 4, echo_time=te, repetition_time=4000.0, volumetric=False)
        for path in write_series(tmp_path / str(te), VALUES, PLACE, acquisition):
            data = pydicom.dcmread(path)
            rename(data, str(te))
            data.save_as(path)
    first, second = judge(tmp_path)
    assert (first.used, first.why_not) == (False, "a proton density scan")
    assert (second.used, second.modality) == (True, "T2")


def test_private_elements_of_others_are_not_mistaken_for_those_of_a_maker(tmp_path: Path):
    made = replace(USED["siemens t2"], private=(
        *of("SOMEBODY ELSE", 0x0019, 0x0C, "IS", "1000"), *of("SOMEBODY ELSE", 0x0043, 0x39, "IS", ["1000"]),
        *of("SOMEBODY ELSE", 0x0043, 0x2F, "SS", 1), *of("SOMEBODY ELSE", 0x2001, 0x03, "FL", 1000.0),
    ))  # fmt: skip
    write(tmp_path, made, "explicit")
    (row,) = judge(tmp_path)
    assert (row.modality, row.used) == ("T2", True)
