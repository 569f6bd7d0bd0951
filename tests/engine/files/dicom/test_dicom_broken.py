"""DICOM files that were damaged in any way are read, or refused in a sentence; nothing of the patient gets out."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom import MARKED, SYNTAXES, Acquisition, Storage, affine_of, write_series
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.dicom.scanning import scan_series

MOST_BYTES = 48 << 20
SHAPE = (3, 24, 20)
VALUES = np.random.default_rng(0).integers(0, 900, SHAPE)
AFFINE = affine_of(shape=SHAPE)
FLAIR = Acquisition("flair", 3)
SECRETS = ("SECRET", *MARKED.values())


def damage(content: bytes, random: np.random.Generator) -> bytes:
    """Damage a file in one of many ways."""
    changed = bytearray(content)
    way = random.integers(7)
    at = int(random.integers(132, len(changed)))
    if way == 0:  # cut short
        del changed[at:]
    elif way == 1:  # a few bytes, anywhere
        for place in random.integers(132, len(changed), size=random.integers(1, 9)):
            changed[place] = random.integers(256)
    elif way == 2:  # a few bytes of the pixels
        for place in random.integers(len(changed) * 2 // 3, len(changed), size=random.integers(1, 9)):
            changed[place] = random.integers(256)
    elif way == 3:  # a number that is absurd
        changed[at : at + 4] = random.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", bytes(4), b"\0\xca\x9a\x3b"])
    elif way == 4:  # a part is gone
        del changed[at : at + int(random.integers(1, 64))]
    elif way == 5:  # a part is there twice
        changed[at:at] = changed[at : at + int(random.integers(1, 64))]
    else:  # of two places one takes the content of the other
        other = int(random.integers(132, len(changed)))
        changed[at : at + 8] = changed[other : other + 8]
    return bytes(changed)


def read_damaged(folder: Path, paths: list[Path], seed: int) -> bool:
    """Damage one file of a series and read all; return whether that could be done without a word."""
    random = np.random.default_rng(seed)
    wrong = paths[int(random.integers(len(paths)))]
    whole = wrong.read_bytes()
    wrong.write_bytes(damage(whole, random))
    try:
        found = scan_series([folder])
        said = [problem for each in found if (problem := each.problem) is not None]
        for each in found:
            if each.problem is None:
                try:
                    array, grid = read_series(each.paths, each.channel)
                    assert array.shape[-3:] == grid.shape_ZYX
                    assert np.isfinite(grid.affine).all()
                except DataError as error:
                    said.append(str(error))
    finally:
        wrong.write_bytes(whole)
    assert not any(secret in text for text in said for secret in SECRETS), seed
    return not said


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(tmp_path, syntax, enhanced, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    paths = write_series(tmp_path, VALUES, AFFINE, FLAIR, Storage(syntax=syntax, enhanced=enhanced))
    caplog.clear()
    tracemalloc.start()
    for seed in range(4):
        read_damaged(tmp_path, paths, seed)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < MOST_BYTES
    assert not any(secret in text for text in (*capfd.readouterr(), caplog.text) for secret in SECRETS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_file_damaged_in_many_ways_is_read_or_refused_in_a_sentence(tmp_path, syntax, enhanced):
    paths = write_series(tmp_path, VALUES, AFFINE, FLAIR, Storage(syntax=syntax, enhanced=enhanced))
    fine = sum(read_damaged(tmp_path, paths, seed) for seed in range(100, 140))
    assert fine < 40


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_file_that_is_cut_short_names_its_series_and_not_the_patient(tmp_path, syntax):
    paths = write_series(tmp_path, VALUES, AFFINE, FLAIR, Storage(syntax=syntax))
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    (series,) = scan_series([tmp_path])
    with pytest.raises(DataError) as caught:
        read_series(series.paths)
    assert str(caught.value) == (
        "Series 3 'flair' cannot be read. File 2 of 3 in its folder is damaged, truncated or not a readable DICOM "
        "file. Copy or export the series again."
    )


def test_a_file_whose_header_is_cut_short_costs_only_itself(tmp_path):
    values = np.repeat(VALUES, 3, axis=0)
    paths = write_series(tmp_path, values, affine_of(shape=values.shape), FLAIR)
    paths[4].write_bytes(paths[4].read_bytes()[:300])
    broken, series = sorted(scan_series([tmp_path]), key=lambda each: each.problem is None)
    assert "File 5 of 9 in its folder is damaged" in (broken.problem or "")
    assert "1 slice is missing from Series 3 'flair' (after slice 4)" in series.notes[0]
    assert read_series(series.paths)[0].shape == values.shape


@pytest.mark.parametrize(
    "tags",
    [
        {"Rows": 60000, "Columns": 60000},
        {"NumberOfFrames": "2000000000"},
        {"NumberOfFrames": "19999", "Rows": 60000, "Columns": 60000},
        {"BitsStored": 40},
        {"Rows": 0},
        {"SamplesPerPixel": 3},
    ],
)
@pytest.mark.parametrize("syntax", ["explicit", "jpeg2000", "rle"])
def test_sizes_that_cannot_be_take_no_memory(tmp_path, syntax, tags):
    (path,) = write_series(tmp_path, VALUES[:1], AFFINE, FLAIR, Storage(syntax=syntax))
    data = pydicom.dcmread(path)
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.save_as(path)
    tracemalloc.start()
    (series,) = scan_series([tmp_path])
    with pytest.raises(DataError, match=r"Series 3 'flair'|File 1 of 1 in its folder is damaged"):
        read_series(series.paths)
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize("syntax", ["jpeg", "jpegls", "jpeg2000"])
def test_a_compressed_image_of_another_size_than_its_header_says_is_refused(tmp_path, syntax):
    (path,) = write_series(tmp_path / "a", VALUES[:1], AFFINE, FLAIR, Storage(syntax=syntax))
    larger = np.zeros((1, 400, 300))
    (other,) = write_series(tmp_path / "b", larger, affine_of(shape=larger.shape), FLAIR, Storage(syntax=syntax))
    data = pydicom.dcmread(path)
    data.PixelData = pydicom.dcmread(other).PixelData
    data.save_as(path)
    with pytest.raises(DataError, match=r"File 1 of 1 in its folder is damaged"):
        read_series([path])


def test_sequences_nested_without_end_are_refused(tmp_path):
    (path,) = write_series(tmp_path, VALUES[:1], AFFINE, FLAIR)
    start = path.read_bytes()
    inner = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path.write_bytes(start + inner * 100_000)
    for series in scan_series([tmp_path]):
        with pytest.raises(DataError, match="damaged"):
            read_series(series.paths)


def test_a_file_with_the_name_of_dicom_and_other_content_is_counted_not_named(tmp_path):
    for name, content in (("a.dcm", b"hello"), ("b.dcm", bytes(4000)), ("empty.dcm", b"")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "c").write_bytes(bytes(128) + b"DICM" + bytes(100))
    (series,) = scan_series([tmp_path])
    assert "File 3 of 4 in its folder is damaged, truncated or not a readable DICOM file" in (series.problem or "")
    given = scan_series([tmp_path / "a.dcm", tmp_path / "c"])
    assert [(each.problem or "")[:25] for each in given] == ["File 3 of 4 in its folder", "File 1 of 4 in its folder"]
