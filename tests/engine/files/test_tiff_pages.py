"""A TIFF file is read whole: every page is in the stack, or the file is refused with what is in it."""

import numpy as np
import pytest
import tifffile

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.tiff import read_tiff

STACK = np.random.default_rng(0).integers(0, 255, (7, 20, 30)).astype(np.uint8)
RGB = np.stack([STACK, 255 - STACK, STACK // 2], axis=-1)
GRAY = {"photometric": "minisblack"}


def append(path, pages, **options):
    for page in pages:
        tifffile.imwrite(path, page, append=path.exists(), **options)
    return path


def write_pages(path, pages, **options):
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, **options)
    return path


@pytest.mark.parametrize("write", [append, write_pages])
@pytest.mark.parametrize(
    "options",
    [{}, {"metadata": None}, {"compression": "zlib"}, {"metadata": None, "compression": "lzw"}, {"contiguous": False}],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pages_appended_one_by_one_are_one_stack(tmp_path, write, options, dtype):
    if "contiguous" in options and write is append:
        options = {"software": "another"}
    array, grid, _ = read_tiff(write(tmp_path / "scan.tif", STACK.astype(dtype), **GRAY, **options))
    np.testing.assert_array_equal(array, STACK)
    assert array.dtype == dtype
    assert grid.shape == STACK.shape


@pytest.mark.parametrize("write", [append, write_pages])
def test_color_pages_appended_one_by_one_are_one_stack_of_channels(tmp_path, write):
    array, _, _ = read_tiff(write(tmp_path / "scan.tif", RGB, photometric="rgb", contiguous=False))
    np.testing.assert_array_equal(array, RGB.transpose(3, 0, 1, 2))


def test_slices_with_an_axis_of_their_own_are_stacked_too(tmp_path):
    array, _, _ = read_tiff(append(tmp_path / "scan.tif", STACK[:, None], **GRAY))
    np.testing.assert_array_equal(array, STACK)


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("thumbnail", ["gray", "color", "wide"])
@pytest.mark.parametrize("how", ["as one", "one by one"])
def test_a_thumbnail_beside_the_stack_is_left_out(tmp_path, where, thumbnail, how):
    small = {"gray": STACK[0, ::2, ::2], "color": RGB[0, ::2, ::2], "wide": STACK[0, ::4, ::2]}[thumbnail]
    small_options = {"photometric": "rgb" if thumbnail == "color" else "minisblack", "subfiletype": 1}
    path = tmp_path / "scan.tif"
    if where == "first":
        append(path, [small], **small_options)
    append(path, [STACK] if how == "as one" else STACK, **GRAY)
    if where == "last":
        append(path, [small], **small_options)
    np.testing.assert_array_equal(read_tiff(path)[0], STACK)


def test_an_overview_that_is_not_marked_is_left_out_where_it_is_at_most_half_as_large(tmp_path):
    path = append(tmp_path / "scan.tif", STACK, **GRAY)
    append(path, [STACK[0, :10, :15]], **GRAY)
    np.testing.assert_array_equal(read_tiff(path)[0], STACK)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([np.zeros((80, 120), np.uint8)], r"holds 8 images: 7 of 20 x 30 \(YX\) of uint8, 1 of 80 x 120 \(YX\)"),
        ([np.zeros((18, 30), np.uint8)], "holds 8 images"),
        ([STACK[0].astype(np.uint16)], r"7 of 20 x 30 \(YX\) of uint8, 1 of 20 x 30 \(YX\) of uint16"),
        ([RGB[0]], "holds 8 images"),
        ([np.zeros((10, 15), np.uint8)] * 2, "holds 9 images"),
    ],
)
def test_pages_of_several_sizes_or_kinds_are_refused(tmp_path, others, message):
    path = append(tmp_path / "scan.tif", STACK, **GRAY)
    for other in others:
        tifffile.imwrite(path, other, append=True, photometric="rgb" if other.ndim == 3 else "minisblack")
    with pytest.raises(
        DataError, match=rf"'scan\.tif' .*{message}.*Expected one stack of slices of the same size and type"
    ):
        read_tiff(path)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (STACK, STACK),
        (STACK, STACK[:3]),
        (STACK, STACK[:1]),
        (STACK[:2], STACK),
        (STACK, STACK[:, ::2, ::2]),
        (RGB, STACK),
    ],
)
def test_several_stacks_in_a_file_are_refused(tmp_path, one, two):
    path = tmp_path / "scan.tif"
    for array in (one, two):
        photometric = "rgb" if array.ndim == 4 else "minisblack"
        tifffile.imwrite(path, array, append=path.exists(), photometric=photometric)
    with pytest.raises(DataError, match=r"'scan\.tif' holds 2 images: .*Save the stack you need"):
        read_tiff(path)


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((7, 20, 30), "ZYX", (7, 20, 30)),
        ((7, 20, 30), "TYX", (7, 20, 30)),
        ((3, 20, 30), "CYX", (3, 1, 20, 30)),
        ((7, 3, 20, 30), "ZCYX", (3, 7, 20, 30)),
        ((5, 7, 20, 30), "TZYX", None),
        ((5, 3, 20, 30), "TCYX", (3, 5, 20, 30)),
        ((2, 5, 3, 20, 30), "TZCYX", None),
    ],
)
def test_an_imagej_hyperstack_is_read_whole_or_refused(tmp_path, shape, axes, expected):
    data = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "scan.tif", data, imagej=True, metadata={"axes": axes})
    if expected is None:
        with pytest.raises(DataError, match=r"has the axes T.*Expected one stack of slices"):
            read_tiff(tmp_path / "scan.tif")
    else:
        array = read_tiff(tmp_path / "scan.tif")[0]
        assert array.shape == expected
        assert np.array_equal(np.sort(array.ravel()), np.sort(data.ravel()))


def test_an_imagej_stack_with_pages_that_another_program_appended_is_refused_or_read_whole(tmp_path):
    tifffile.imwrite(tmp_path / "scan.tif", STACK[:5], imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "scan.tif", STACK[5:], append="force", metadata=None, **GRAY)
    try:
        array = read_tiff(tmp_path / "scan.tif")[0]
    except DataError as error:
        assert "scan.tif' holds" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(array, STACK)


def test_a_pyramid_is_read_at_its_full_size(tmp_path):
    with tifffile.TiffWriter(tmp_path / "scan.tif", ome=True) as file:
        file.write(STACK, subifds=1, metadata={"axes": "ZYX"}, **GRAY)
        file.write(STACK[:, ::2, ::2], subfiletype=1, **GRAY)
    np.testing.assert_array_equal(read_tiff(tmp_path / "scan.tif")[0], STACK)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("slices", [1, 7])
def test_an_ome_file_of_several_images_is_refused(tmp_path, count, slices):
    with tifffile.TiffWriter(tmp_path / "scan.ome.tif", ome=True) as file:
        for _ in range(count):
            file.write(STACK[:slices], metadata={"axes": "ZYX"}, contiguous=False, **GRAY)
    with pytest.raises(DataError, match=rf"holds {count} images: {count} of "):
        read_tiff(tmp_path / "scan.ome.tif")


def companions(folder):
    """A stack in two OME files, each naming both, as microscopes and converters write them."""
    uuids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{n}" for n in (1, 2)]
    parts = "".join(
        f'<TiffData FirstZ="{z}" IFD="{z % 4}" PlaneCount="1">'
        f'<UUID FileName="part{z // 4}.ome.tif">{uuids[z // 4]}</UUID></TiffData>'
        for z in range(8)
    )
    for n in range(2):
        xml = (
            f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{uuids[n]}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
            f'SizeX="30" SizeY="20" SizeZ="8" SizeC="1" SizeT="1"><Channel ID="Channel:0:0"/>{parts}</Pixels>'
            "</Image></OME>"
        )
        data = np.stack([*STACK, STACK[0]])[4 * n : 4 * n + 4]
        tifffile.imwrite(folder / f"part{n}.ome.tif", data, description=xml, metadata=None, **GRAY)


def test_a_scan_in_several_ome_files_is_read_whole_and_refused_where_one_is_missing(tmp_path):
    companions(tmp_path)
    np.testing.assert_array_equal(read_tiff(tmp_path / "part0.ome.tif")[0], [*STACK, STACK[0]])
    (tmp_path / "part1.ome.tif").unlink()
    with pytest.raises(DataError, match=r"one part of a scan in several files, and 4 of its 8 slices are missing"):
        read_tiff(tmp_path / "part0.ome.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_file_in_which_0_is_white_is_turned_around(tmp_path, dtype):
    stack = STACK.astype(dtype)
    tifffile.imwrite(tmp_path / "scan.tif", np.iinfo(dtype).max - stack, photometric="miniswhite")
    np.testing.assert_array_equal(read_tiff(tmp_path / "scan.tif")[0], stack)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_blank_stack_is_read_however_well_it_is_compressed(tmp_path, compression):
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((64, 256, 256), np.uint8), compression=compression, **GRAY)
    assert not read_tiff(tmp_path / "mask.tif")[0].any()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tag", ["ImageWidth", "ImageLength"])
def test_a_size_that_the_file_cannot_hold_is_refused_before_anything_is_allocated(tmp_path, compression, tag):
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, STACK[0], compression=compression, metadata=None, **GRAY)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags[tag].overwrite(2_000_000_000)
    with pytest.raises(
        DataError, match=r"'scan\.tif' is damaged, truncated.*declares [\d,]+ bytes, more than it can contain"
    ):
        read_tiff(path)
