"""Files that were damaged in any way are read, or refused in a sentence: nothing else may come of them."""

import gzip
import io
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import tifffile

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.nifti import read_nifti
from napari_braintumor.engine.files.tiff import read_tiff

MOST_BYTES = 48 << 20
"""What reading a damaged file of some kB may take; a declared size of gigabytes is far from it."""

STACK = np.random.default_rng(0).integers(0, 255, (9, 20, 30)).astype(np.uint8)
GRAY = {"photometric": "minisblack"}
SIZES = {f"PhysicalSize{axis}": 1.5 for axis in "ZYX"} | {f"PhysicalSize{axis}Unit": "mm" for axis in "ZYX"}


def nifti(kind=nib.Nifti1Image, dtype=np.int16, packed=False):
    image = kind(STACK.astype(dtype), np.diag([-1.0, -1, 3, 1]))
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    return gzip.compress(content, 1) if packed else content


def tiff(array=STACK, appended=False, **options):
    content = io.BytesIO()
    with tifffile.TiffWriter(
        content, **{k: options.pop(k) for k in ("ome", "imagej", "bigtiff") if k in options}
    ) as file:
        for part in array if appended else [array]:
            file.write(part, **{**GRAY, **options})
    return content.getvalue()


WHOLE = {
    "a.nii": lambda: nifti(),
    "b.nii": lambda: nifti(nib.Nifti2Image, np.float32),
    "c.nii.gz": lambda: nifti(packed=True),
    "d.nii.gz": lambda: nifti(dtype=np.uint8),  # not packed, against its name
    "a.tif": lambda: tiff(),
    "b.tif": lambda: tiff(metadata=None, compression="zlib", rowsperstrip=5),
    "c.tif": lambda: tiff(ome=True, metadata={"axes": "ZYX", **SIZES}),
    "d.tif": lambda: tiff(imagej=True, metadata={"axes": "ZYX", "unit": "mm", "spacing": 2.0}, resolution=(1, 1)),
    "e.tif": lambda: tiff(appended=True, contiguous=False),
    "f.tif": lambda: tiff(bigtiff=True, tile=(16, 16), compression="lzw"),
    "g.tif": lambda: tiff(np.stack([STACK] * 3, -1), photometric="rgb", compression="zlib", predictor=True),
}
HEADS = {"nii": 348, "gz": 400, "tif": 700}
"""How many bytes of a file are most worth damaging."""


def damage(content, kind, random):
    """Damage a file in one of many ways."""
    content = bytearray(content)
    head = min(HEADS[kind], len(content))
    way = random.integers(8)
    if way == 0:  # cut short
        del content[random.integers(len(content)) :]
    elif way == 1:  # a few bytes, anywhere
        for at in random.integers(len(content), size=random.integers(1, 9)):
            content[at] = random.integers(256)
    elif way in (2, 3):  # a few bytes of what describes it
        for at in random.integers(head, size=random.integers(1, 5)):
            content[at] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.integers(256)])
    elif way == 4:  # a number that is absurd
        at = int(random.integers(max(1, head - 4)))
        content[at : at + 4] = random.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", bytes(4), b"\0\xca\x9a\x3b"])
    elif way == 5:  # a part is gone
        at, size = random.integers(head), random.integers(1, 64)
        del content[at : at + size]
    elif way == 6:  # a part is there twice
        at, size = int(random.integers(head)), int(random.integers(1, 64))
        content[at:at] = content[at : at + size]
    else:  # of two numbers, or of the text in XML, one takes the other's place
        one, two = (int(n) for n in random.integers(max(1, head - 8), size=2))
        content[one : one + 8] = content[two : two + 8]
    return bytes(content)


def read_damaged(folder, name, seed):
    """Read a file damaged by a seed; return whether it could be, and how many bytes were taken."""
    random = np.random.default_rng(seed)
    path = folder / name
    path.write_bytes(damage(WHOLE[name](), name.rpartition(".")[2], random))
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        array, grid, *_ = (read_tiff if name.endswith("tif") else read_nifti)(path)
    except DataError as error:
        assert f"'{name}'" in str(error)  # noqa: PT017
        read = False
    else:
        assert array.shape[-3:] == grid.shape_ZYX
        assert min(grid.spacing) > 0
        assert np.isfinite(grid.affine).all()
        read = True
    return read, tracemalloc.get_traced_memory()[1] - before


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_file_is_read_or_refused_in_a_sentence_and_takes_little_memory(tmp_path, name, traced):
    for seed in range(14):
        _, taken = read_damaged(tmp_path, name, seed)
        assert taken < MOST_BYTES, f"{name}, seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_file_damaged_in_many_ways_is_read_or_refused_in_a_sentence(tmp_path, name, traced):
    for seed in range(100, 300):
        _, taken = read_damaged(tmp_path, name, seed)
        assert taken < MOST_BYTES, f"{name}, seed {seed}"


XML = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYZCT" Type="uint8" SizeX="{x}" SizeY="20" SizeZ="{z}" SizeC="1" SizeT="1" {more}>'
    '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
)


@pytest.mark.parametrize(
    "text",
    [
        XML.format(x=30, z=9, more="")[:-20],
        XML.format(x=30, z=900_000_000, more=""),
        XML.format(x=3_000_000_000, z=9, more=""),
        XML.format(x=0, z=0, more=""),
        XML.format(x=-30, z=9, more=""),
        XML.format(x="many", z=9, more=""),
        XML.format(x=30, z=9, more='PhysicalSizeX="wide" PhysicalSizeY="NaN" PhysicalSizeZ="inf"'),
        XML.format(x=30, z=9, more='PhysicalSizeX="1e300" PhysicalSizeY="1e-300" PhysicalSizeZ="-4"'),
        XML.replace('<TiffData/>', '<TiffData FirstZ="77"/>').format(x=30, z=9, more=""),
        "<OME/>",
        "<OME>&bomb;</OME>",
        "<OME" + " x" * 5000,
    ],
)  # fmt: skip
def test_an_ome_description_that_makes_no_sense_costs_one_sentence(tmp_path, text, traced):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, STACK, description=f'<?xml version="1.0"?>{text}', metadata=None, **GRAY)
    try:
        array, grid, _ = read_tiff(path)
    except DataError as error:
        assert "'a.ome.tif'" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(array, STACK)
        assert 0.05 <= min(grid.spacing) <= 30
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES


@pytest.mark.parametrize(
    "text",
    [
        '{"shape": [900000000, 20, 30]}',
        '{"shape": [9, 20, 3000000000]}',
        '{"shape": []}',
        '{"shape": [-9, 20, 30]}',
        '{"shape": [9.5, 20, "x"]}',
        '{"shape": null, "axes": 7}',
        '{"shape": [9, 20, 30], "axes": "ABCDEFGH"}',
        "ImageJ=1.11a\nimages=900000000\nslices=900000000\n",
        "ImageJ=1.11a\nimages=9\nslices=9\nunit=mm\nspacing=wide\n",
        "ImageJ=1.11a\nimages=-9\nslices=0\n",
        "ImageJ=1.11a\nimages=9\nchannels=many\n",
        "ImageJ=1.11a\nimages=9\nframes=3\nslices=4\nhyperstack=true\n",
    ],
)
def test_a_description_that_makes_no_sense_costs_one_sentence(tmp_path, text, traced):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, description=text, metadata=None, resolution=(1, 1), **GRAY)
    try:
        array, _, _ = read_tiff(path)
    except DataError as error:
        assert "'a.tif'" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(array, STACK)
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES


@pytest.mark.parametrize("seed", range(3))
def test_what_is_read_of_a_damaged_gzip_file_is_what_was_written(tmp_path, seed):
    random = np.random.default_rng(seed)
    whole = bytearray(WHOLE["c.nii.gz"]())
    for _ in range(15):
        content = whole.copy()
        content[random.integers(10, len(content))] ^= 1 << int(random.integers(8))
        (tmp_path / "a.nii.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"'a\.nii\.gz' is"):
            read_nifti(tmp_path / "a.nii.gz")
