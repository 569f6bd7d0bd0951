"""``python -m napari_braintumor``: the same as the command ``napari-braintumor``."""

from napari_braintumor.cli import app

app()
