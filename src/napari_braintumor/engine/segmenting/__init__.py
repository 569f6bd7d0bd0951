"""A volume and a model in, a segmentation out."""
