from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_braintumor.engine.errors import DataError
from napari_braintumor.layers import (
    CaseView,
    cases_in,
    find_case,
    labels_for,
    match_modalities,
    select_layers,
    update_or_add_labels,
)
from open_layers import open_case


def image(name: str, fill: int = 0) -> Image:
    return Image(np.full((3, 4, 5), fill, np.float32), name=name, contrast_limits=(0, 1))


@pytest.mark.parametrize(
    ("names", "cases"),
    [
        (["anna_t1", "bert_flair"], {"anna": ["anna_t1"], "bert": ["bert_flair"]}),
        (["p_t1", "p_flair", "P_t2"], {"p": ["p_t1", "p_flair", "P_t2"]}),
        (["x_2019_t1", "x_2020_t1"], {"x_2019": ["x_2019_t1"], "x_2020": ["x_2020_t1"]}),
        (["t1", "flair"], {"t1": ["t1", "flair"]}),
        (["t1", "anna_flair"], {"anna": ["anna_flair", "t1"]}),
        (["scan", "other"], {}),
        (["anna_t1", "scan"], {"anna": ["anna_t1"]}),
    ],
)
def test_scans_of_other_plugins_are_one_case_if_their_names_leave_the_same(names, cases):
    found = cases_in([image(name) for name in names])
    assert {case.name: sorted(scan.name for scan in case.scans) for case in found} == {
        name: sorted(scans) for name, scans in cases.items()
    }


def test_two_studies_that_name_their_patients_alike_are_two_cases(tmp_path: Path, synthetic_volume):
    from napari_braintumor.layers import layers_from_case

    layers = []
    for study in ("a", "b"):
        for data, options, kind in layers_from_case(synthetic_volume(("T1", "FLAIR"), name="sub-01")):
            layer = Layer.create(data, options, kind)
            layer._set_source(layer.source.model_copy(update={"path": str(tmp_path / study / "x.nii.gz")}))
            layers.append(layer)
    cases = cases_in(layers)
    assert [case.name for case in cases] == ["sub-01 (a)", "sub-01 (b)"]
    assert list(match_modalities(layers).values()) == layers[2:]
    assert list(match_modalities(layers, layers[0]).values()) == layers[:2]


def test_labels_of_one_case_are_refused_with_the_scans_of_another(viewer, volume, synthetic_volume, segmentation):
    """All BraTS cases share shape and affine, so these prove nothing."""
    first = open_case(viewer, volume)
    selection = select_layers(first)
    result = update_or_add_labels(viewer, segmentation, selection.placement, made_from=selection.made_from)
    second = open_case(viewer, synthetic_volume(name="patient8"))
    assert labels_for(selection, result).any()
    assert labels_for(select_layers({"T1": first["T1"]}), result).any()
    mixed = {"T1": first["T1"], "T2": second["T2"]}
    for others in (second, {"FLAIR": second["FLAIR"]}, mixed):
        with pytest.raises(DataError, match="belong to the scans of case 'patient7', not to those of"):
            labels_for(select_layers(others), result)


@pytest.mark.parametrize("role", ["reference", "tumor"])
def test_labels_that_were_opened_with_a_case_are_refused_with_the_scans_of_another(
    viewer, volume, synthetic_volume, role
):
    first, second = open_case(viewer, volume), open_case(viewer, synthetic_volume(name="patient8"))
    scan = first["T1"]
    known = {"braintumor": {"case": "patient7", "role": role}}
    labels = Labels(np.ones(scan.data.shape, np.uint8), scale=scan.scale, translate=scan.translate, metadata=known)
    assert labels_for(select_layers(first), labels).all()
    with pytest.raises(DataError, match="Choose the labels of 'patient8'"):
        labels_for(select_layers(second), labels)


def test_labels_that_know_no_case_are_taken_for_what_they_lie_on(viewer, volume):
    scans = open_case(viewer, volume)
    scan = scans["T1"]
    painted = Labels(np.ones(scan.data.shape, np.uint8), scale=scan.scale, translate=scan.translate)
    assert labels_for(select_layers(scans), painted).all()


def test_arrays_of_two_patients_with_the_same_names_are_not_mixed_up_by_their_results(segmentation):
    first, second = ({m: image(m.lower(), n) for m in ("T1", "FLAIR")} for n in (1, 2))
    viewer = ViewerModel()
    selection = select_layers(first)
    small = Labels(np.ones((3, 4, 5), np.uint8), metadata={"braintumor": {"made_from": selection.made_from}})
    viewer.add_layer(small)
    assert labels_for(selection, small).all()
    with pytest.raises(DataError, match="belong to the scans of case"):
        labels_for(select_layers(second), small)


def test_a_file_that_was_opened_again_is_the_same_scan(tmp_path: Path):
    def opened(path: Path) -> dict[str, Image]:
        layer = image("p_t1")
        layer._set_source(layer.source.model_copy(update={"path": str(path)}))
        return {"T1": layer}

    selection = select_layers(opened(tmp_path / "p" / "p_t1.nii.gz"))
    labels = Labels(np.ones((3, 4, 5), np.uint8), metadata={"braintumor": {"made_from": selection.made_from}})
    for again in (tmp_path / "p" / "p_t1.nii.gz", tmp_path / "p"):
        assert labels_for(select_layers(opened(again)), labels).all()
    with pytest.raises(DataError, match="belong to the scans of case"):
        labels_for(select_layers(opened(tmp_path / "q" / "p_t1.nii.gz")), labels)


def test_two_cases_that_were_opened_with_one_folder_are_two(viewer, volume, synthetic_volume, segmentation, tmp_path):
    scans = []
    for name in ("anna", "bert"):
        at = replace(volume.source, path=tmp_path / f"{name}_t1.nii.gz")
        opened = open_case(viewer, synthetic_volume(source=at, name=name))
        for layer in opened.values():
            layer._set_source(layer.source.model_copy(update={"path": str(tmp_path)}))
        scans.append(select_layers(opened))
    labels = update_or_add_labels(viewer, segmentation, scans[0].placement, made_from=scans[0].made_from)
    assert labels_for(scans[0], labels).any()
    with pytest.raises(DataError, match="belong to the scans of case"):
        labels_for(scans[1], labels)


def test_one_case_is_shown_and_the_others_come_back_as_they_were(viewer, volume, synthetic_volume, segmentation):
    first = open_case(viewer, volume)
    selection = select_layers(first)
    tumor = update_or_add_labels(viewer, segmentation, selection.placement, made_from=selection.made_from)
    second = open_case(viewer, synthetic_volume(name="patient8"))
    mine = viewer.add_labels(np.zeros((6, 20, 16), np.uint8), name="mine")
    before = {layer: layer.visible for layer in viewer.layers}
    one, two = (find_case(cases_in(viewer.layers), scans["T1"]) for scans in (first, second))
    view = CaseView()
    view.show_only(two, viewer.layers)
    assert not any(layer.visible for layer in (*first.values(), tumor))
    assert mine.visible
    view.show_only(one, viewer.layers)
    assert [layer.visible for layer in (*first.values(), tumor)] == [before[x] for x in (*first.values(), tumor)]
    assert not any(layer.visible for layer in second.values())
    view.show_all(viewer.layers)
    assert {layer: layer.visible for layer in viewer.layers} == before


def test_of_a_case_whose_scans_are_all_hidden_one_is_shown(viewer, volume):
    scans = open_case(viewer, volume)
    for scan in scans.values():
        scan.visible = False
    (case,) = cases_in(viewer.layers)
    CaseView().show_some(case)
    assert [name for name, scan in scans.items() if scan.visible] == ["FLAIR"]
