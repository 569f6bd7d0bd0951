import numpy as np
import pytest
import tifffile

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.tiff import read_tiff, read_tiff_slices, write_tiff_labels
from napari_braintumor.engine.grid import default_grid, grid_from_affine

STACK = np.random.default_rng(0).integers(0, 255, (7, 20, 30)).astype(np.uint8)
CHANNELS = np.stack([STACK, STACK[::-1], 255 - STACK])  # (C, Z, Y, X)
GRAY = {"photometric": "minisblack"}


def save(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": None},
        {"metadata": {"axes": "ZYX"}, "compression": "zlib"},
        {"metadata": {"axes": "TYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"bigtiff": True, "byteorder": ">"},
        {"rowsperstrip": 8, "compression": "lzw", "metadata": None},
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_stack_is_read_as_stored(tmp_path, options, dtype):
    path = save(tmp_path / "scan.tif", STACK.astype(dtype), **GRAY, **options)
    array, grid, names = read_tiff(path)
    np.testing.assert_array_equal(array, STACK)
    assert array.dtype == dtype
    assert (grid.shape, grid.spacing, grid.spacing_known, grid.format, grid.path) == (
        (7, 20, 30), (1, 1, 1), False, "tiff", path,
    )  # fmt: skip
    assert names == ()
    np.testing.assert_array_equal(grid.to_source(array), array)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (CHANNELS.transpose(1, 2, 3, 0), {"photometric": "rgb"}),
        (CHANNELS.transpose(1, 2, 3, 0), {"photometric": "rgb", "metadata": None, "compression": "zlib"}),
        (CHANNELS.transpose(1, 2, 3, 0), {"photometric": "rgb", "metadata": {"axes": "ZYXS"}}),
        (CHANNELS.transpose(1, 2, 3, 0), GRAY),
        (CHANNELS, GRAY),
        (CHANNELS, GRAY | {"ome": True, "metadata": {"axes": "CZYX"}}),
        (CHANNELS.transpose(1, 0, 2, 3), GRAY | {"ome": True, "metadata": {"axes": "ZCYX"}}),
        (CHANNELS.transpose(1, 0, 2, 3), GRAY | {"imagej": True, "metadata": {"axes": "ZCYX"}}),
    ],
)
def test_channels_come_first_however_they_are_stored(tmp_path, array, options):
    np.testing.assert_array_equal(read_tiff(save(tmp_path / "scan.tiff", array, **options))[0], CHANNELS)


def test_a_single_picture_is_a_stack_of_one_slice(tmp_path):
    array, grid, _ = read_tiff(save(tmp_path / "a.tif", STACK[0]))
    np.testing.assert_array_equal(array, STACK[:1])
    assert grid.shape == (1, 20, 30)
    array, _, _ = read_tiff(save(tmp_path / "b.tif", CHANNELS[:, 0].transpose(1, 2, 0), photometric="rgb"))
    np.testing.assert_array_equal(array, CHANNELS[:, :1])


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("µm", 1000), ("cm", 0.1), ("m", 0.001), (None, 1000)])
def test_an_ome_tiff_states_its_voxel_size_in_any_unit(tmp_path, unit, factor):
    metadata = {"axes": "ZYX"}
    for axis, size in zip("ZYX", (5, 0.9, 0.8), strict=True):
        metadata |= {f"PhysicalSize{axis}": size * factor} | ({f"PhysicalSize{axis}Unit": unit} if unit else {})
    _, grid, _ = read_tiff(save(tmp_path / "scan.ome.tif", STACK, **GRAY, ome=True, metadata=metadata))
    assert grid.spacing == pytest.approx((5, 0.9, 0.8))
    assert grid.spacing_known


@pytest.mark.parametrize(
    "sizes",
    [
        {"PhysicalSizeX": 1, "PhysicalSizeY": 1},
        {"PhysicalSizeZ": 5},
        {f"PhysicalSize{a}{u}": v for a in "XYZ" for u, v in (("", 1), ("Unit", "pixel"))},
    ],
)
def test_a_voxel_size_in_part_or_in_pixels_is_not_known(tmp_path, sizes):
    _, grid, _ = read_tiff(
        save(tmp_path / "scan.tif", STACK, **GRAY, ome=True, metadata={"axes": "ZYX", **sizes}),
    )
    assert not grid.spacing_known


def test_the_thickness_of_a_single_slice_need_not_be_known(tmp_path):
    sizes = {"PhysicalSizeX": 900, "PhysicalSizeY": 900}
    _, grid, _ = read_tiff(save(tmp_path / "a.tif", STACK[0], ome=True, metadata={"axes": "YX", **sizes}))
    assert grid.spacing_known
    assert grid.spacing == pytest.approx((1, 0.9, 0.9))


def test_an_ome_tiff_names_its_channels(tmp_path):
    metadata = {"axes": "CZYX", "Channel": {"Name": ["FLAIR", "T1", "T1ce"]}}
    path = save(tmp_path / "scan.tif", CHANNELS, **GRAY, ome=True, metadata=metadata)
    assert read_tiff(path)[2] == ("FLAIR", "T1", "T1ce")
    metadata = {"axes": "ZYX", "Channel": {"Name": ["FLAIR"]}}
    assert read_tiff(save(path, STACK, **GRAY, ome=True, metadata=metadata))[2] == ("FLAIR",)


@pytest.mark.parametrize(
    ("unit", "factor", "known", "expected"),
    [
        ("mm", 1, True, (5, 10, 8)),
        ("cm", 0.1, True, (5, 10, 8)),
        ("micron", 1000, True, (5, 10, 8)),
        ("\\u00B5m", 1000, True, (5, 10, 8)),
        ("inch", 1 / 25.4, True, (5, 10, 8)),
        ("pixel", 1, False, (1, 1, 1)),
        (None, 1, False, (1, 1, 1)),
    ],
)
@pytest.mark.parametrize("direction", [1, -1])  # by which ImageJ notes how it was scanned
def test_an_imagej_tiff_states_its_voxel_size(tmp_path, unit, factor, known, expected, direction):
    metadata = {"axes": "ZYX", "spacing": 5.0 * factor * direction} | ({"unit": unit} if unit else {})
    resolution = (1 / (8 * factor), 1 / (10 * factor))
    path = save(tmp_path / "scan.tif", STACK, imagej=True, resolution=resolution, metadata=metadata)
    _, grid, _ = read_tiff(path)
    assert grid.spacing == pytest.approx(expected, rel=1e-4)
    assert (grid.spacing_known, grid.notes) == (known, ())


@pytest.mark.parametrize("kind", ["ome", "imagej"])
@pytest.mark.parametrize("factor", [1e-3, 1e3, 0.01])
def test_a_tiff_of_an_impossible_size_is_read_with_a_guess_that_is_noted(tmp_path, kind, factor):
    z, y, x = 5 * factor, 10 * factor, 8 * factor
    metadata = {"axes": "ZYX"}
    options = {}
    if kind == "ome":
        metadata |= {"PhysicalSizeZ": z, "PhysicalSizeY": y, "PhysicalSizeX": x}
        metadata |= {f"PhysicalSize{axis}Unit": "mm" for axis in "ZYX"}
    else:
        metadata |= {"spacing": z, "unit": "mm"}
        options = {"resolution": (1 / x, 1 / y)}
    _, grid, _ = read_tiff(save(tmp_path / "scan.tif", STACK, **{kind: True}, metadata=metadata, **GRAY, **options))
    assert not grid.spacing_known
    assert grid.spacing == pytest.approx((5, 10, 8), rel=1e-4)
    assert "'scan.tif' states voxels of" in grid.notes[0]
    assert "5 x 10 x 8 mm was assumed" in grid.notes[0]


def test_slices_in_files_of_their_own_are_stacked_in_the_order_given(tmp_path):
    paths = [save(tmp_path / f"s{z}.tif", CHANNELS[:, z].transpose(1, 2, 0), photometric="rgb") for z in range(7)]
    array, grid, _ = read_tiff_slices(paths)
    np.testing.assert_array_equal(array, CHANNELS)
    assert (grid.shape, grid.path, grid.spacing_known) == ((7, 20, 30), paths[0], False)
    np.testing.assert_array_equal(read_tiff_slices(paths[::-1])[0], CHANNELS[:, ::-1])


def test_slices_of_different_shape_are_refused(tmp_path):
    paths = [save(tmp_path / "a.tif", STACK[0]), save(tmp_path / "b.tif", STACK[0, :, :9])]
    with pytest.raises(DataError, match=r"Slices 'a\.tif' \(1, 20, 30\) and 'b\.tif' \(1, 20, 9\) differ in shape"):
        read_tiff_slices(paths)


def test_labels_are_written_as_ome_tiff_with_the_voxel_size(tmp_path):
    labels = STACK % 4
    path = tmp_path / "labels.tif"
    write_tiff_labels(labels, default_grid(labels.shape, (5, 0.9, 0.8)), path)
    array, grid, _ = read_tiff(path)
    np.testing.assert_array_equal(array, labels)
    assert array.dtype == np.uint8
    assert grid.spacing == pytest.approx((5, 0.9, 0.8))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].axes == "ZYX"
        assert tiff.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
    assert [file.name for file in tmp_path.iterdir()] == ["labels.tif"]


def test_a_voxel_size_that_is_a_guess_is_not_written(tmp_path):
    write_tiff_labels(STACK % 4, default_grid(STACK.shape, (5, 1, 1), spacing_known=False), tmp_path / "labels.tif")
    _, grid, _ = read_tiff(tmp_path / "labels.tif")
    assert not grid.spacing_known


def test_a_single_slice_of_labels_is_written_and_read(tmp_path):
    write_tiff_labels(STACK[:1] % 4, default_grid((1, 20, 30)), tmp_path / "labels.tif")
    np.testing.assert_array_equal(read_tiff(tmp_path / "labels.tif")[0], STACK[:1] % 4)


def test_labels_of_a_nifti_scan_are_written_with_axes_zyx(tmp_path):
    grid = grid_from_affine((30, 20, 7), np.diag([0.8, 0.9, 5.0, 1.0]))
    write_tiff_labels(STACK % 4, grid, tmp_path / "labels.tif")
    array, again, _ = read_tiff(tmp_path / "labels.tif")
    np.testing.assert_array_equal(array, STACK % 4)
    assert again.spacing == pytest.approx((5, 0.9, 0.8))


def test_labels_that_cannot_be_written_there_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"labels\.tif' cannot be written: No such file"):
        write_tiff_labels(STACK % 4, default_grid(STACK.shape), tmp_path / "gone" / "labels.tif")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib", "metadata": {"axes": "ZYX"}},
        {"ome": True},
        {"ome": True, "compression": "zlib"},
        {"imagej": True},
        {"metadata": None},
        {"metadata": None, "compression": "zlib"},
        {"metadata": None, "rowsperstrip": 8, "compression": "zlib"},
    ],
)
def test_a_truncated_file_is_never_read_in_part(tmp_path, options):
    path = save(tmp_path / "scan.tif", STACK, **GRAY, **options)
    whole = path.read_bytes()
    refused = 0
    for share in (0.001, 0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99):
        path.write_bytes(whole[: max(1, int(len(whole) * share))])
        try:
            array, _, _ = read_tiff(path)
        except DataError as error:
            assert "damaged, truncated or not a readable TIFF file" in str(error)  # noqa: PT017
            refused += 1
        else:  # what was cut off was not of the image
            np.testing.assert_array_equal(array, STACK)
    assert refused >= 6


@pytest.mark.parametrize("content", [b"no scan at all" * 9, b"II*\0"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "scan.tif"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged, truncated or not a readable TIFF file"):
        read_tiff(path)


def test_a_missing_or_empty_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_tiff(tmp_path / "scan.tif")
    (tmp_path / "scan.tif").touch()
    with pytest.raises(DataError, match="is empty"):
        read_tiff(tmp_path / "scan.tif")


@pytest.mark.parametrize("axes", ["TZYX", "TCZYX"])
def test_axes_that_make_no_stack_are_refused(tmp_path, axes):
    array = np.zeros((2, 3, 4, 8, 9)[-len(axes) :], np.uint8)
    path = save(tmp_path / "scan.tif", array, **GRAY, ome=True, metadata={"axes": axes})
    with pytest.raises(DataError, match=f"'scan.tif' has the axes {axes}.*Save it as OME-TIFF with axes ZYX or CZYX"):
        read_tiff(path)


def test_four_axes_without_names_and_without_few_channels_are_refused(tmp_path):
    with pytest.raises(DataError, match="has the axes"):
        read_tiff(save(tmp_path / "scan.tif", np.zeros((6, 7, 8, 9), np.uint8), **GRAY))
