"""napari-braintumor: segment brain tumors in MRI from napari, the command line or Python."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("napari-braintumor")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0"
