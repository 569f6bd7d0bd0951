from __future__ import annotations

from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

import pytest
from npe2 import PluginManifest

from napari_braintumor.engine.files.formats import FORMATS

PACKAGE = Path(import_module("napari_braintumor").__file__ or "").parent


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_distribution("napari-braintumor")


def test_the_manifest_is_valid(manifest):
    manifest.validate_imports()
    assert manifest.display_name == "Brain Tumor"
    assert set(manifest.categories) == {"Segmentation", "Annotation", "Measurement", "IO"}


def test_the_icon_ships_with_the_package(manifest):
    package, _, name = manifest.icon.partition(":")
    assert package == "napari_braintumor"
    assert (PACKAGE / name).read_text().startswith("<svg")


def test_the_link_at_the_top_leads_to_the_manifest_in_the_package():
    link = Path(__file__).parents[1] / "napari.yaml"
    if not link.exists():
        pytest.skip("not in a source tree")
    assert link.resolve() == PACKAGE / "napari.yaml"


def test_the_docks_are_in_the_menu_of_segmentation(manifest):
    items = manifest.contributions.menus["napari/layers/segment"]
    assert {item.command for item in items} == {widget.command for widget in manifest.contributions.widgets}


@pytest.mark.parametrize(
    "name", ["a.nii", "a.NII.GZ", "a.TIFF", "a.dcm", "a.nrrd", "a.MHA", "a.mgz", "a.hdr", "DICOMDIR"]
)
def test_the_reader_is_offered_for(manifest, name):
    (reader,) = manifest.contributions.readers
    assert reader.accepts_directories
    assert any(fnmatch(name, pattern) for pattern in reader.filename_patterns)


def test_the_manifest_lists_the_endings_of_all_formats(manifest):
    endings = [suffix for each in FORMATS for suffix in each.suffixes]
    patterns = [f"*{way}" for end in endings for way in (end, end.upper())]
    (reader,), (writer,) = manifest.contributions.readers, manifest.contributions.writers
    assert sorted(reader.filename_patterns) == sorted([*patterns, "DICOMDIR"]), "run tools/write_endings.py"
    assert writer.filename_extensions == [suffix for each in FORMATS for suffix in each.written_suffixes]


def test_the_reader_does_not_claim_every_gz(manifest):
    (reader,) = manifest.contributions.readers
    assert not any(fnmatch("archive.gz", pattern) for pattern in reader.filename_patterns)
