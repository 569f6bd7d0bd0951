"""DICOM files, read only: their headers, the stacks that their planes make, and their voxels."""
