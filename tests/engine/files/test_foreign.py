"""Files that are something else than a scan that can be read are called what they are."""

import bz2
import io
import zipfile

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.formats import check_readable
from napari_braintumor.engine.files.nifti import read_nifti
from napari_braintumor.engine.files.tiff import read_tiff

SCAN = np.random.default_rng(0).integers(0, 255, (8, 9, 10)).astype(np.int16)


def picture(kind):
    content = io.BytesIO()
    Image.fromarray(SCAN[0].astype(np.uint8)).save(content, kind)
    return content.getvalue()


def dicom(preamble):
    pydicom = pytest.importorskip("pydicom")
    content = io.BytesIO()
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3"
    data.Modality, data.Rows = "MR", 4
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    if preamble:
        pydicom.dcmwrite(content, data, enforce_file_format=True)
    else:
        file = pydicom.filebase.DicomFileLike(content)
        file.is_little_endian, file.is_implicit_VR = True, True
        pydicom.filewriter.write_dataset(file, data)
    return content.getvalue()


def saved(tmp_path, image, name):
    nib.save(image, tmp_path / name)
    return (tmp_path / name).read_bytes()


def zipped():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("t1.nii", b"x")
    return content.getvalue()


def tiff():
    content = io.BytesIO()
    tifffile.imwrite(content, SCAN)
    return content.getvalue()


AFFINE = np.eye(4)
CONTENTS = {
    "PNG": (lambda _: picture("PNG"), r"is a PNG picture, not a scan\. Pictures have no depth.*Open the scan"),
    "JPEG": (lambda _: picture("JPEG"), "is a JPEG picture, not a scan"),
    "BMP": (lambda _: picture("BMP"), "is a BMP picture, not a scan"),
    "GIF": (lambda _: picture("GIF"), "is a GIF picture, not a scan"),
    "DICOM": (lambda _: dicom(True), r"is a DICOM file\. Give it a name ending in \.dcm"),
    "DICOM without preamble": (lambda _: dicom(False), "is a DICOM file"),
    "pair": (
        lambda tmp: saved(tmp, nib.Nifti1Pair(SCAN, AFFINE), "p.hdr"),
        r"is half of an Analyze or NIfTI pair .*Give its two files names ending in \.hdr and \.img",
    ),
    "Analyze": (
        lambda tmp: saved(tmp, nib.AnalyzeImage(SCAN, AFFINE), "p.hdr"),
        "is half of an Analyze or NIfTI pair",
    ),
    "zip": (lambda _: zipped(), r"is a zip file\. Unpack it first"),
    "bzip2": (lambda _: bz2.compress(b"x" * 999), r"is a bzip2 file\. Unpack it first"),
    "NRRD": (lambda _: b"NRRD0004\n# Complete\n", r"is an NRRD file\. Give it a name ending in \.nrrd"),
    "MetaImage": (lambda _: b"ObjectType = Image\nNDims = 3\n", "is a MetaImage file"),
    "Git LFS": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer.*git lfs pull"),
    "web page": (lambda _: b"<!DOCTYPE html><html>Log in", "is a web page, not a scan.*log in first"),
}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.tif", "a", "a.dat"])
@pytest.mark.parametrize(("make", "message"), CONTENTS.values(), ids=CONTENTS)
def test_a_file_is_called_what_it_holds_whatever_its_name_says(tmp_path, make, message, name):
    content = make(tmp_path)
    (tmp_path / name).write_bytes(content)
    called = "File 1 of 1 in its folder" if "DICOM" in message else f"'{name}'"  # its name may be the patient's
    with pytest.raises(DataError, match=rf"{called} {message}"):
        (read_tiff if name.endswith("tif") else read_nifti)(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.hdr", "is half of an Analyze or NIfTI pair"),
        ("a.img", "is half of an Analyze or NIfTI pair"),
        ("a.mnc", r"is a MINC file\. MINC is not supported yet"),
        ("a.jpg", "is a JPEG picture"),
        ("a.nii.bz2", "is a bz2 file"),
        ("a.xyz", r"cannot be read\. Expected NIfTI \(\.nii, \.nii\.gz\), TIFF"),
    ],
)
def test_a_file_whose_content_says_nothing_is_called_what_its_name_says(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x" * 999)
    with pytest.raises(DataError, match=f"'{name}' {message}"):
        check_readable(tmp_path / name)


def test_nifti_and_tiff_called_by_each_others_name_are_distinguished(tmp_path):
    (tmp_path / "a.nii").write_bytes(tiff())
    with pytest.raises(DataError, match=r"'a\.nii' is a TIFF file\. Give it a name ending in \.tif"):
        read_nifti(tmp_path / "a.nii")
    for kind in ("b.nii", "b.nii.gz"):
        (tmp_path / "a.tif").write_bytes(saved(tmp_path, nib.Nifti1Image(SCAN, AFFINE), kind))
        with pytest.raises(DataError, match=r"'a\.tif' is a NIfTI file\. Give it a name ending in \.nii"):
            read_tiff(tmp_path / "a.tif")
