"""Convert a folder of one axial DICOM series to NIfTI, for measuring; the program itself does not read DICOM.

Usage: python tools/convert_dicom.py SERIES_FOLDER OUTPUT.nii.gz
"""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom


def main(folder: Path, output: Path) -> None:
    slices = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    right_down = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(*right_down)
    slices.sort(key=lambda item: np.dot(normal, item.ImagePositionPatient))
    first, last = (np.array(item.ImagePositionPatient, float) for item in (slices[0], slices[-1]))
    row_mm, column_mm = map(float, slices[0].PixelSpacing)  # between rows, then between columns
    affine = np.eye(4)
    affine[:3, 0] = right_down[0] * column_mm
    affine[:3, 1] = right_down[1] * row_mm
    affine[:3, 2] = (last - first) / max(len(slices) - 1, 1)
    affine[:3, 3] = first
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM is LPS, NIfTI RAS
    stack = np.stack(
        [
            item.pixel_array * float(item.get("RescaleSlope", 1)) + float(item.get("RescaleIntercept", 0))
            for item in slices
        ]
    )
    nib.save(nib.Nifti1Image(stack.transpose(2, 1, 0).astype(np.float32), affine), output)
    print(f"{len(slices)} slices of {stack.shape[1:]} written to {output}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
