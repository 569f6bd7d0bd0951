import json

import numpy as np
import pytest
from stored import ALL, NEW, OLD, described, ramp, save_nifti, save_tiff, touch

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import CaseFiles, ImageFile, find_cases
from napari_braintumor.engine.files.reading import read_case

# ------------------------------------------------------------------------------------------------ naming schemes


@pytest.mark.parametrize(
    ("folder", "stem", "kinds", "patient", "convention"),
    [
        ("BraTS2021_00000", "BraTS2021_00000_{}", OLD, None, "brats2017"),
        ("BraTS20_Training_001", "BraTS20_Training_001_{}", OLD, None, "brats2017"),
        ("BraTS20_Validation_001", "BraTS20_Validation_001_{}", OLD, None, "brats2017"),
        ("HGG/Brats18_CBICA_AAB_1", "Brats18_CBICA_AAB_1_{}", OLD, "Brats18_CBICA_AAB", "brats2017"),
        ("LGG/BraTS19_2013_10_1", "BraTS19_2013_10_1_{}", OLD, "BraTS19_2013_10", "brats2017"),
        ("brats_2013_pat0001_1", "brats_2013_pat0001_1_{}", OLD, "brats_2013_pat0001", "brats2013"),
        ("brats_tcia_pat222_2", "brats_tcia_pat222_2_{}", OLD, "brats_tcia_pat222", "brats2013"),
        ("BraTS-GLI-00000-000", "BraTS-GLI-00000-000-{}", NEW, "BraTS-GLI-00000", "brats2023"),
        ("BraTS-GLI-00005-101", "BraTS-GLI-00005-101-{}", NEW, "BraTS-GLI-00005", "brats2024"),
        ("BraTS-MET-00012-000", "BraTS-MET-00012-000-{}", NEW, "BraTS-MET-00012", "brats2023"),
        ("BraTS-MEN-00012-000", "BraTS-MEN-00012-000-{}", NEW, "BraTS-MEN-00012", "brats2023"),
        ("BraTS-SSA-00012-000", "BraTS-SSA-00012-000-{}", NEW, "BraTS-SSA-00012", "brats2023"),
        ("BraTS-PED-00012-000", "BraTS-PED-00012-000-{}", NEW, "BraTS-PED-00012", "bratsped2024"),
        ("ASNR-MICCAI-BraTS2023-PED-Challenge/BraTS-PED-00012-000", "BraTS-PED-00012-000-{}", NEW, "BraTS-PED-00012",
         "brats2023"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_brats_cases_of_every_year_are_found(tmp_path, folder, stem, kinds, patient, convention, suffix):
    names = [stem.format(kind) + suffix for kind in (*kinds, "seg")]
    touch(tmp_path / folder, *names)
    for start in (tmp_path, tmp_path / folder):
        (case,) = find_cases(start)
        name = folder.rpartition("/")[2]
        assert (case.name, case.patient, case.group, case.convention) == (name, patient or name, "brats", convention)
        assert described(case) == (dict(zip(ALL, ([n] for n in names), strict=False)), names[4:])
        assert all(image.channel is None for image in case.images)


def test_the_odd_mask_of_a_brats_case_is_found_in_its_folder(tmp_path):
    folder = tmp_path / "BraTS20_Training_355"
    touch(folder, *(f"BraTS20_Training_355_{kind}.nii" for kind in OLD), "W39_1998.09.19_Segm.nii")
    (case,) = find_cases(tmp_path)
    assert [path.name for path in case.reference] == ["W39_1998.09.19_Segm.nii"]
    assert case.convention is None  # whoever drew it


def test_another_mask_beside_that_of_the_set_does_not_count(tmp_path):
    folder = touch(tmp_path, "BraTS2021_00000_t1.nii", "BraTS2021_00000_seg.nii", "BraTS2021_00000_labels.nii")
    (case,) = find_cases(folder)
    assert [path.name for path in case.reference] == ["BraTS2021_00000_seg.nii"]


def test_a_brats_case_may_lack_modalities_and_mask(tmp_path):
    touch(tmp_path, "BraTS2021_00001/BraTS2021_00001_flair.nii.gz")
    (case,) = find_cases(tmp_path)
    assert described(case) == ({"FLAIR": ["BraTS2021_00001_flair.nii.gz"]}, [])


def test_two_time_points_are_two_cases_of_one_patient(tmp_path):
    touch(tmp_path, *(f"BraTS-GLI-00008-10{t}/BraTS-GLI-00008-10{t}-t2f.nii.gz" for t in (0, 1)))
    first, second = find_cases(tmp_path)
    assert (first.name, second.name) == ("BraTS-GLI-00008-100", "BraTS-GLI-00008-101")
    assert first.patient == second.patient == "BraTS-GLI-00008"


def test_the_early_brats_names_are_found(tmp_path):
    names = ["MR_T1.54513", "MR_T1c.54514", "MR_T2.54515", "MR_Flair.54512"]
    for name in names:
        touch(tmp_path / "HGG/brats_tcia_pat100_1" / f"VSD.Brain.XX.O.{name}", f"VSD.Brain.XX.O.{name}.mha")
    mask = "VSD.Brain_3more.XX.O.OT.54517"
    touch(tmp_path / "HGG/brats_tcia_pat100_1" / mask, f"{mask}.mha")
    (case,) = find_cases(tmp_path)
    assert described(case) == (
        dict(zip(ALL, ([f"VSD.Brain.XX.O.{name}.mha"] for name in names), strict=True)), [f"{mask}.mha"],
    )  # fmt: skip
    assert (case.name, case.patient, case.convention) == ("brats_tcia_pat100_1", "brats_tcia_pat100", "brats2013")
    with pytest.raises(DataError, match=r"\.mha' is empty\. Expected an image"):
        read_case(case)


def test_lgg_stacks_hold_three_modalities(tmp_path):
    touch(tmp_path / "TCGA_CS_4941_19960909", "TCGA_CS_4941_19960909.tif", "TCGA_CS_4941_19960909_mask.tif")
    (case,) = find_cases(tmp_path)
    path = tmp_path / "TCGA_CS_4941_19960909/TCGA_CS_4941_19960909.tif"
    assert case == CaseFiles(
        "TCGA_CS_4941_19960909", "TCGA_CS_4941", "lgg",
        (ImageFile((path,), "T1", 0), ImageFile((path,), "T1ce", 2), ImageFile((path,), "FLAIR", 1)),
        (path.with_name("TCGA_CS_4941_19960909_mask.tif"),), "whole",
    )  # fmt: skip


def test_lgg_slices_are_put_in_the_order_of_their_numbers(tmp_path):
    stem = "TCGA_CS_4942_19970222"
    touch(tmp_path / "kaggle_3m" / stem, *(f"{stem}_{n}{m}.tif" for n in range(1, 13) for m in ("", "_mask")))
    touch(tmp_path / "kaggle_3m", "data.csv", "README.md")
    (case,) = find_cases(tmp_path)
    assert [path.name for path in case.images[0].paths] == [f"{stem}_{n}.tif" for n in range(1, 13)]
    assert [path.name for path in case.reference] == [f"{stem}_{n}_mask.tif" for n in range(1, 13)]
    assert [(image.modality, image.channel) for image in case.images] == [("T1", 0), ("T1ce", 2), ("FLAIR", 1)]
    assert (case.name, case.patient, case.group, case.convention) == (stem, "TCGA_CS_4942", "lgg", "whole")


def test_brain_tumor_progression_cases_know_only_enhancing_tumor(tmp_path):
    touch(tmp_path / "PGBM-006_post", "PGBM-006_post_t1ce.nii.gz", "PGBM-006_post_seg.nii.gz")
    touch(tmp_path / "PGBM-006_pre", "PGBM-006_pre_t1ce.nii.gz")
    first, second = find_cases(tmp_path)
    assert described(first) == ({"T1ce": ["PGBM-006_post_t1ce.nii.gz"]}, ["PGBM-006_post_seg.nii.gz"])
    assert (first.group, first.convention) == ("btp", "enhancing")
    assert first.patient == second.patient == "PGBM-006"


def test_prepared_brisc_slices_know_only_the_core(tmp_path):
    stems = [f"brisc2025_train_0000{n}_gl_ax" for n in (1, 2)]
    touch(tmp_path, *(f"{stem}_{kind}.tif" for stem in stems for kind in ("T1ce", "mask")))
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == stems
    assert described(cases[0]) == ({"T1ce": [f"{stems[0]}_T1ce.tif"]}, [f"{stems[0]}_mask.tif"])
    assert (cases[0].group, cases[0].convention, cases[0].patient) == ("brisc", "core", stems[0])


def test_decathlon_images_find_their_labels_in_the_folder_beside(tmp_path):
    touch(tmp_path / "Task01_BrainTumour", "imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz",
          "imagesTs/BRATS_485.nii.gz", "imagesTr/._BRATS_001.nii.gz")  # fmt: skip
    case, unlabeled = find_cases(tmp_path)
    assert (case.name, case.group, case.convention) == ("BRATS_001", "decathlon", "decathlon")
    assert {image.modality: image.channel for image in case.images} == {"FLAIR": 0, "T1": 1, "T1ce": 2, "T2": 3}
    assert [path.parent.name for path in case.reference] == ["labelsTr"]
    assert unlabeled.reference == ()


def test_bids_images_are_distinguished_from_brain_masks_and_derivatives(tmp_path):
    touch(
        tmp_path,
        "sub-01/ses-02/anat/sub-01_ses-02_T1w.nii.gz",
        "sub-01/ses-02/anat/sub-01_ses-02_ce-gadolinium_T1w.nii.gz",
        "sub-01/ses-02/anat/sub-01_ses-02_run-1_T2w.nii.gz",
        "sub-01/ses-02/anat/sub-01_ses-02_run-2_T2w.nii.gz",
        "sub-01/ses-02/anat/sub-01_ses-02_FLAIR.nii.gz",
        "derivatives/fmriprep/sub-01/ses-02/anat/sub-01_ses-02_desc-preproc_T1w.nii.gz",
        "derivatives/fmriprep/sub-01/ses-02/anat/sub-01_ses-02_desc-brain_mask.nii.gz",
        "derivatives/fmriprep/sub-01/ses-02/anat/sub-01_ses-02_dseg.nii.gz",
        "derivatives/manual/sub-01/ses-02/anat/sub-01_ses-02_label-tumor_desc-brats2023_dseg.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
    )
    case, other = find_cases(tmp_path)
    stem = "sub-01_ses-02"
    assert described(case) == (
        {"T1": [f"{stem}_T1w.nii.gz"], "T1ce": [f"{stem}_ce-gadolinium_T1w.nii.gz"],
         "T2": [f"{stem}_run-1_T2w.nii.gz"], "FLAIR": [f"{stem}_FLAIR.nii.gz"]},
        [f"{stem}_label-tumor_desc-brats2023_dseg.nii.gz"],
    )  # fmt: skip
    assert (case.name, case.patient, case.group, case.convention) == (stem, "sub-01", "bids", "brats2023")
    assert (other.name, other.reference) == ("sub-02", ())


# ----------------------------------------------------------------------------------------------- names of no set


def test_a_folder_of_plainly_named_files_is_a_case(tmp_path):
    touch(
        tmp_path / "anna", "t1.nii.gz", "T1_Gd.nii.gz", "t2w.nii", "flair.nii.gz", "tumor_mask.nii.gz", "brainmask.nii"
    )
    (case,) = find_cases(tmp_path)
    assert described(case) == (
        {"T1": ["t1.nii.gz"], "T1ce": ["T1_Gd.nii.gz"], "T2": ["t2w.nii"], "FLAIR": ["flair.nii.gz"]},
        ["tumor_mask.nii.gz"],
    )
    assert (case.name, case.patient, case.group, case.convention) == ("anna", "anna", "other", None)


def test_files_of_a_converter_make_one_case_if_no_modality_repeats(tmp_path):
    touch(tmp_path / "anna", "3_t1_mprage.nii.gz", "5_t2_flair_tra.nii.gz", "8_t1_post_gad.nii.gz")
    (case,) = find_cases(tmp_path)
    assert case.name == "anna"
    assert [image.modality for image in case.images] == ["T1", "T1ce", "FLAIR"]


def test_patients_side_by_side_in_a_folder_are_distinguished_by_their_names(tmp_path):
    touch(tmp_path, "anna_t1.nii", "anna_flair.nii", "anna_seg.nii", "bert_t1.nii", "bert_flair.nii", "p10_t1.nii",
          "p9_t1.nii")  # fmt: skip
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["anna", "bert", "p9", "p10"]
    assert described(cases[0]) == ({"T1": ["anna_t1.nii"], "FLAIR": ["anna_flair.nii"]}, ["anna_seg.nii"])
    assert described(cases[1]) == ({"T1": ["bert_t1.nii"], "FLAIR": ["bert_flair.nii"]}, [])


def test_a_mask_may_name_its_convention(tmp_path):
    touch(tmp_path / "anna", "t1.nii.gz", "seg_brats2013.nii.gz")
    assert find_cases(tmp_path)[0].convention == "brats2013"
    touch(tmp_path / "bert", "t1.nii.gz", "mask_whole.nii.gz")
    assert find_cases(tmp_path / "bert")[0].convention == "whole"


def test_a_tcga_patient_is_one_patient_under_every_name(tmp_path):
    touch(tmp_path, "TCGA-FG-6692_native/t1.nii.gz", "TCGA_FG_6692_20020606/TCGA_FG_6692_20020606.tif")
    assert {case.patient for case in find_cases(tmp_path)} == {"TCGA_FG_6692"}


def test_cases_found_together_have_different_names(tmp_path):
    touch(tmp_path, "anna/before/t1.nii.gz", "anna/after/t1.nii.gz", "bert/before/t1.nii.gz", "bert/after/t1.nii.gz")
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["anna_after", "anna_before", "bert_after", "bert_before"]
    assert [case.patient for case in cases] == ["anna", "anna", "bert", "bert"]


def test_equal_names_in_one_folder_are_numbered(tmp_path):
    folder = tmp_path / "BraTS2021_00000"
    touch(folder, "BraTS2021_00000_t1.nii", "anna_t1.nii", "anna_flair.nii", "flair.nii")
    assert [case.name for case in find_cases(tmp_path)] == ["anna", "BraTS2021_00000", "BraTS2021_00000_2"]


def test_links_in_a_circle_are_followed_once(tmp_path):
    touch(tmp_path / "data/anna", "t1.nii")
    (tmp_path / "data/anna/all").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "link").symlink_to(tmp_path / "data", target_is_directory=True)
    assert [case.name for case in find_cases(tmp_path / "link")] == ["anna"]


def test_time_points_before_and_after_treatment_stay_apart(tmp_path):
    touch(tmp_path, *(f"anna_{when}_{kind}.nii" for when in ("pre", "post") for kind in ("t1", "t1ce", "flair")))
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["anna_post", "anna_pre"]
    assert [len(case.images) for case in cases] == [3, 3]


def test_a_patient_in_two_layouts_keeps_its_patient(tmp_path):
    stem = "TCGA_CS_4942_19970222"
    touch(tmp_path, f"lgg/{stem}/{stem}.tif", f"kaggle_3m/{stem}/{stem}_1.tif", f"kaggle_3m/{stem}/{stem}_2.tif")
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == [f"kaggle_3m_{stem}", f"lgg_{stem}"]
    assert {case.patient for case in cases} == {"TCGA_CS_4942"}


# ------------------------------------------------------------------------------------- files given by themselves


def test_a_file_by_itself_is_a_case_of_one_modality_with_its_mask(tmp_path):
    folder = tmp_path / "BraTS2021_00000"
    for kind in ("t1", "flair", "seg"):
        save_nifti(folder / f"BraTS2021_00000_{kind}.nii.gz", ramp())
    (case,) = find_cases(folder / "BraTS2021_00000_flair.nii.gz")
    assert described(case) == ({"FLAIR": ["BraTS2021_00000_flair.nii.gz"]}, ["BraTS2021_00000_seg.nii.gz"])


def test_a_stack_by_itself_has_all_its_channels(tmp_path):
    path = save_tiff(tmp_path / "TCGA_CS_4941_19960909.tif", np.stack([ramp()] * 3, -1), photometric="rgb")
    touch(tmp_path, "TCGA_CS_4941_19960909_mask.tif", "TCGA_CS_6667_20011105.tif")
    (case,) = find_cases(path)
    assert [image.modality for image in case.images] == ["T1", "T1ce", "FLAIR"]
    assert [path.name for path in case.reference] == ["TCGA_CS_4941_19960909_mask.tif"]


def test_a_decathlon_file_by_itself_finds_its_label(tmp_path):
    path = save_nifti(tmp_path / "imagesTr/BRATS_001.nii.gz", ramp())
    touch(tmp_path, "labelsTr/BRATS_001.nii.gz", "labelsTr/BRATS_002.nii.gz")
    (case,) = find_cases(path)
    assert [path.parent.name for path in case.reference] == ["labelsTr"]


def test_several_files_are_one_case(tmp_path):
    paths = [save_nifti(tmp_path / f"{kind}.nii.gz", ramp()) for kind in ("t1", "flair", "t2")]
    (case,) = find_cases(paths[:2])
    assert [image.modality for image in case.images] == ["T1", "FLAIR"]


def test_a_relative_path_will_do(tmp_path, monkeypatch):
    save_nifti(tmp_path / "anna_t1.nii", ramp())
    monkeypatch.chdir(tmp_path)
    assert find_cases("anna_t1.nii")[0].name == "anna"
    assert find_cases(".")[0].name == "anna"


# ------------------------------------------------------------------------------- channels that names do not tell


def test_channels_may_be_named_by_the_caller(tmp_path):
    array = np.stack([ramp(seed=i) for i in range(3)], -1)
    path = save_tiff(tmp_path / "scan.tif", array, photometric="rgb")
    (case,) = find_cases(path, ["t1n", "FLAIR", "T1Gd"])
    volume = read_case(case)
    assert (volume.modalities, volume.name) == (("T1", "T1ce", "FLAIR"), "scan")
    np.testing.assert_array_equal(volume.data, array.transpose(3, 0, 1, 2)[[0, 2, 1]])


def test_channels_of_a_nifti_file_may_be_named_by_the_caller(tmp_path):
    array = np.stack([ramp(seed=i) for i in range(2)])
    (case,) = find_cases(save_nifti(tmp_path / "scan.nii.gz", array), ["FLAIR", "T2"])
    volume = read_case(case)
    assert volume.modalities == ("T2", "FLAIR")
    np.testing.assert_array_equal(volume.data, array[::-1])


def test_a_single_unnamed_file_may_be_named_by_the_caller(tmp_path):
    save_nifti(tmp_path / "a/anna.nii.gz", ramp())
    save_nifti(tmp_path / "b/bert.nii.gz", ramp())
    cases = find_cases(tmp_path, ["flair"])
    assert [case.name for case in cases] == ["anna", "bert"]
    assert read_case(cases[0]).modalities == ("FLAIR",)


def test_an_ome_tiff_names_its_channels_itself(tmp_path):
    array = np.stack([ramp(seed=i) for i in range(2)])
    metadata = {"axes": "CZYX", "Channel": {"Name": ["t2_flair", "t1c"]}}
    save_tiff(tmp_path / "anna.ome.tif", array, ome=True, metadata=metadata)
    save_tiff(tmp_path / "anna_mask_whole.tif", ramp() % 2)
    (case,) = find_cases(tmp_path)
    assert (case.name, case.convention, len(case.reference)) == ("anna", "whole", 1)
    np.testing.assert_array_equal(read_case(case).with_modalities(("FLAIR", "T1ce")).data, array)


def test_a_wrong_number_of_names_is_refused(tmp_path):
    path = save_nifti(tmp_path / "scan.nii.gz", ramp())
    with pytest.raises(DataError, match=r"'scan\.nii\.gz' has 1 channels, but 2 modalities were named \(T1, FLAIR\)"):
        find_cases(path, ["T1", "FLAIR"])


def test_an_unknown_modality_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'ADC' is not a known modality\. Expected T1, T1ce, T2, FLAIR"):
        find_cases(tmp_path, ["ADC"])


@pytest.mark.parametrize("name", ["scan.tif", "scan.nii.gz"])
def test_an_unnamed_file_is_refused_with_how_to_name_it(tmp_path, name):
    (save_tiff if name.endswith("tif") else save_nifti)(tmp_path / name, ramp())
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match=f"'{name}' does not say which modality it is.*--modalities T1,FLAIR,T1ce"):
            find_cases(path)


# --------------------------------------------------------------------------------------------- nothing, or too much


def test_a_folder_without_cases_is_refused_with_what_was_looked_for(tmp_path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(DataError, match=r"No case was found in .*NIfTI.*t1ce"):
        find_cases(tmp_path)


def test_a_folder_of_masks_alone_is_refused(tmp_path):
    with pytest.raises(DataError, match="contains only masks, no images"):
        find_cases(touch(tmp_path, "BraTS2021_00000_seg.nii.gz"))


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match="gone' does not exist"):
        find_cases([tmp_path, tmp_path / "gone"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.hdr", r"'a\.hdr' is half of an Analyze or NIfTI pair"),
        ("a.mnc", "MINC"),
        ("a.jpg", "is a JPEG picture, not a scan"),
        ("a.xyz", "cannot be read. Expected NIfTI"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        find_cases(tmp_path / name)


# ------------------------------------------------------------------------------------- one bad case among others


BAD = {
    "two files of one modality": (("anna_t1.nii", "anna_t1w.nii"), "Case 'anna' has two T1 images: 'anna_t1.nii' and"),
    "a file beside its packed self": (
        ("anna_t1.nii", "anna_t1.nii.gz"),
        "two T1 images: 'anna_t1.nii' and 'anna_t1.nii",
    ),
    "two masks": (
        ("anna_t1.nii", "anna_seg.nii", "anna_mask.nii"),
        "has two masks: 'anna_mask.nii' and 'anna_seg.nii'",
    ),
    "an image that says two things": (("x/anna_t1_flair.nii",), "'anna_t1_flair.nii' may mean FLAIR or T1"),
    "an image that says nothing": (("x/anna.nii.gz",), "'anna.nii.gz' does not say which modality it is"),
    "a TIFF that cannot be opened": (("x/anna.tif",), "'anna.tif'"),
    "numbers of series or of patients": (
        ("x/1_t1.nii", "x/2_flair.nii"),
        "may be series of one patient or scans of two",
    ),
    "nnU-Net's channels without names": (("imagesTr/anna_0000.nii.gz",), "is channel 1 of a case in nnU-Net's layout"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_case_is_found_with_its_problem_and_the_others_beside_it(tmp_path, kind):
    files, problem = BAD[kind]
    touch(tmp_path / "all", *files, "bert_t1.nii", "bert_seg.nii", "carl/flair.nii")
    cases = {case.name: case for case in find_cases(tmp_path)}
    good = [case for case in cases.values() if case.problem is None]
    bad = [case for case in cases.values() if case.problem is not None]
    assert [case.name for case in good] == ["bert", "carl"]
    assert len(bad) == 1
    assert problem in bad[0].problem
    with pytest.raises(DataError) as raised:
        read_case(bad[0])
    assert str(raised.value) == bad[0].problem


def test_a_bad_file_among_several_given_costs_itself_only(tmp_path):
    good = save_nifti(tmp_path / "anna_t1.nii", ramp())
    (tmp_path / "bert_t1.nii").touch()
    cases = find_cases([good, tmp_path / "bert_t1.nii"])
    assert [(case.name, case.problem is None) for case in cases] == [("anna", True), ("bert_t1", False)]


# ------------------------------------------------------------------------ every image is used, or named in a note

STEMS = ("t1", "t1ce", "t2", "flair")


@pytest.mark.parametrize(
    ("files", "taken", "noted"),
    [
        ([*STEMS, *(f"{s}_bet" for s in STEMS)], [f"{s}_bet" for s in STEMS], STEMS),
        (["t1", "flair", *(f"{s}_bet" for s in STEMS)], [f"{s}_bet" for s in STEMS], ("t1", "flair")),
        ([*STEMS, "t1_bet", "flair_bet"], STEMS, ("t1_bet", "flair_bet")),
        ([f"P07_{s.upper()}_brain" for s in STEMS], [f"P07_{s.upper()}_brain" for s in STEMS], ()),
        (["CT1", "T1", "T2_reg_T1", "FLAIR_reg_T1", "T2", "FLAIR"], ["T1", "CT1", "T2_reg_T1", "FLAIR_reg_T1"],
         ("T2", "FLAIR")),
        (["t1", "t1_n4", "flair", "flair_n4"], ["t1_n4", "flair_n4"], ("t1", "flair")),
        (["t1", "t1_unstripped", "flair"], ["t1", "flair"], ("t1_unstripped",)),
        ([*STEMS, "swi", "adc", "dwi_b1000"], STEMS, ("swi", "adc", "dwi_b1000")),
        ([*STEMS, "something"], STEMS, ("something",)),
        ([*STEMS, "t1_flair"], STEMS, ("t1_flair",)),
        ([*STEMS, "brain_mask", "aseg", "flair_bet_mask", "wm_seg"], STEMS, ()),
        (["t1", "anna_flair"], ["t1", "anna_flair"], ("anna_flair", "t1")),
        (["t1_bet", "flair"], ["t1_bet", "flair"], ("t1_bet", "flair")),
    ],
)  # fmt: skip
def test_every_image_of_a_folder_is_used_or_named_in_a_note(tmp_path, files, taken, noted):
    touch(tmp_path / "x", *(f"{name}.nii.gz" for name in files))
    (case,) = find_cases(tmp_path)
    used = [image.paths[0].name.removesuffix(".nii.gz") for image in case.images]
    assert sorted(used) == sorted(taken)
    assert case.reference == ()
    text = " ".join(case.notes)
    assert all(f"'{name}.nii.gz'" in text for name in noted)
    assert bool(text) == bool(noted)


def test_files_of_unread_formats_in_the_folder_of_a_case_are_noted(tmp_path):
    touch(tmp_path / "anna", "t1.nii.gz", "flair.mnc", "t2.rar", "report.txt", "qc.png")
    (case,) = find_cases(tmp_path)
    text = " ".join(case.notes)
    assert "'flair.mnc' was left out because it is a MINC file" in text
    assert "'t2.rar' was left out because it is a rar file" in text
    assert "qc" not in text
    assert "report" not in text


# ------------------------------------------------------------------------------------------- patients are not mixed


@pytest.mark.parametrize(
    ("files", "cases"),
    [
        ("anna_t1 bert_flair", "anna:T1 bert:FLAIR"),
        ("anna_t1 anna_flair bert_seg", "anna:T1,FLAIR"),
        ("Müller_t1 Möller_flair", "Müller:T1 Möller:FLAIR"),
        ("张伟_t1 李娜_flair 张伟_flair", "张伟:T1,FLAIR 李娜:FLAIR"),
        ("Anna_t1 anna_flair", "anna:T1,FLAIR"),
        ("anna_t1 bert_flair anna_seg bert_seg", "anna:T1+ bert:FLAIR+"),
        ("anna_t1 seg", "anna:T1+"),
        ("t1 flair bert_seg", "x:T1,FLAIR"),
        ("t1 flair tumor_mask_manual", "x:T1,FLAIR+"),
        ("P1_t1 P2_t1ce P3_t2 P4_flair", "P1:T1 P2:T1ce P3:T2 P4:FLAIR"),
        ("001_t1 001_flair 002_t1 002_seg", "001:T1,FLAIR 002:T1+"),
        ("case_1_t1 case_2_flair", "case_1:T1 case_2:FLAIR"),
        ("3_t1_mprage 5_t2_tirm_tra_dark-fluid 8_t1_post_gad", "x:T1,T1ce,FLAIR"),
        ("anna_t1_mprage_20190312101500_3 anna_t2_tse_20190312101500_5", "anna_20190312101500:T1,T2"),
        ("anna_20190312_t1 anna_20200312_flair", "anna_20190312:T1 anna_20200312:FLAIR"),
    ],
)
def test_files_are_one_case_only_if_what_is_left_of_their_names_is_equal(tmp_path, files, cases):
    touch(tmp_path / "x", *(f"{name}.nii.gz" for name in files.split()))
    found = [f"{c.name}:{','.join(i.modality for i in c.images)}{'+' * len(c.reference)}" for c in find_cases(tmp_path)]
    assert sorted(found) == sorted(cases.split())


def test_the_same_name_in_both_forms_of_unicode_is_one_name(tmp_path):
    touch(tmp_path, "Mu\u0308ller_t1.nii", "M\u00fcller_flair.nii")
    (case,) = find_cases(tmp_path)
    assert len(case.images) == 2


def test_masks_and_images_left_apart_are_noted(tmp_path):
    touch(tmp_path, "anna_t1.nii", "anna_t2.nii", "bert_seg.nii")
    (case,) = find_cases(tmp_path)
    assert "Mask 'bert_seg.nii' was left out: by name it belongs to a different case" in case.notes[0]
    touch(tmp_path / "two", "anna_t1.nii", "bert_flair.nii")
    anna, _ = find_cases(tmp_path / "two")
    assert "'bert_flair.nii' in the same folder was taken for another patient or time point" in anna.notes[0]


@pytest.mark.parametrize(
    ("files", "patients"),
    [
        ("P7_20190312/t1 P7_scan2/t1 P7_time3_t1 P71_scan1/t1", "P7 P7 P7 P71"),
        ("patient12/2019-03-12/t1 patient12/2020-03-12/t1 patient13/2019-03-12/t1", "patient12 patient12 patient13"),
        ("anna/baseline/t1 anna/followup/t1 bert/baseline/t1", "anna anna bert"),
        ("sub-01/ses-2/anat/sub-01_ses-2_T1w sub-01/ses-1/anat/sub-01_ses-1_T1w", "sub-01 sub-01"),
        ("BraTSReg_002/BraTSReg_002_00_0000_t1 BraTSReg_002/BraTSReg_002_01_0262_t1", "BraTSReg_002 BraTSReg_002"),
        ("BraTS-GLI-00009-000/BraTS-GLI-00009-000-t1n BraTS-GLI-00009-001/BraTS-GLI-00009-001-t1n",
         "BraTS-GLI-00009 BraTS-GLI-00009"),
        ("PGBM-001_pre/PGBM-001_pre_t1ce PGBM-001_post/PGBM-001_post_t1ce", "PGBM-001 PGBM-001"),
        ("UPENN-GBM-00012_11/UPENN-GBM-00012_11_T1 UPENN-GBM-00012_21/UPENN-GBM-00012_21_T1",
         "UPENN-GBM-00012 UPENN-GBM-00012"),
        ("Patient-001/week-000-1/CT1 Patient-001/week-000-2/CT1", "Patient-001 Patient-001"),
        ("case1/t1 case2/t1 case12/t1", "case1 case2 case12"),
        ("data/2019-03-12/t1 data/2020-03-12/t1", "2019-03-12 2020-03-12"),
        ("pre/P1_t1 post/P1_t1 pre/P2_t1", "P1 P1 P2"),
        ("P1/scan1_t1 P1/scan2_t1", "P1 P1"),
        ("imagesTr/BraTS-GLI-00009-000_0000 imagesTr/BraTS-GLI-00009-001_0000", "BraTS-GLI-00009 BraTS-GLI-00009"),
    ],
)  # fmt: skip
def test_time_points_that_names_or_folders_show_are_one_patient(tmp_path, files, patients):
    touch(tmp_path, *(f"{name}.nii.gz" for name in files.split()))
    cases = find_cases(tmp_path, ["T1"] if "_0000 " in files else None)
    assert sorted(case.patient for case in cases) == sorted(patients.split())
    assert len({case.name for case in cases}) == len(cases)


# ---------------------------------------------------------------------------------------------- more public sets


@pytest.mark.parametrize(
    ("stem", "images", "mask", "convention", "patient"),
    [
        ("UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_", "T1_bias T1c_bias T2_bias FLAIR_bias", "tumor_segmentation",
         "brats2017", "UCSF-PDGM-0004"),
        ("UCSF-PDGM-0429_FU003d_nifti/UCSF-PDGM-0429_FU003d_", "T1 T1c T2 FLAIR", "tumor_segmentation", "brats2017",
         "UCSF-PDGM-0429"),
        ("UPENN-GBM-00012_21/UPENN-GBM-00012_21_", "T1 T1GD T2 FLAIR", "segm", "brats2017", "UPENN-GBM-00012"),
        ("TCGA-02-0006/TCGA-02-0006_1996.08.23_", "t1 t1Gd t2 flair", "GlistrBoost_ManuallyCorrected", "brats2017",
         "TCGA_02_0006"),
        ("TCGA-02-0006/TCGA-02-0006_1996.08.23_", "t1 t1Gd t2 flair", "GlistrBoost", "brats2017", "TCGA_02_0006"),
        ("PatientID_0003/Timepoint_1/PatientID_0003_Timepoint_1_", "brain_t1n brain_t1c brain_t2w brain_t2f",
         "tumorMask", None, "PatientID_0003"),
        ("BraTSpseudo_gli00001/BraTSpseudo_gli00001_", "t1 t1ce t2 flair", "seg", "brats2017", "BraTSpseudo_gli00001"),
    ],
)  # fmt: skip
def test_cases_of_public_sets_are_found_with_their_masks(tmp_path, stem, images, mask, convention, patient):
    touch(tmp_path, *(f"{stem}{name}.nii.gz" for name in (*images.split(), mask, "brain_segmentation", "SWI")))
    (case,) = find_cases(tmp_path)
    assert [image.paths[0].name for image in case.images] == [
        f"{stem}{i}.nii.gz".split("/")[-1] for i in images.split()
    ]
    assert [path.name for path in case.reference] == [f"{stem}{mask}.nii.gz".split("/")[-1]]
    assert (case.convention, case.patient, case.problem) == (convention, patient, None)


def test_the_better_of_two_masks_of_a_set_is_taken_and_a_program_s_is_noted(tmp_path):
    stem = "TCGA-02-0006_1996.08.23_"
    touch(tmp_path, f"{stem}t1.nii.gz", f"{stem}GlistrBoost.nii.gz")
    assert "was made by a program and not corrected" in find_cases(tmp_path)[0].notes[0]
    touch(tmp_path, f"{stem}GlistrBoost_ManuallyCorrected.nii.gz")
    (case,) = find_cases(tmp_path)
    assert case.reference[0].name == f"{stem}GlistrBoost_ManuallyCorrected.nii.gz"
    assert f"'{stem}GlistrBoost.nii.gz' was left out" in case.notes[0]


def test_a_gross_tumor_volume_is_the_reference_of_its_case(tmp_path):
    touch(tmp_path, "BraTS-MEN-RT-0012-1_t1c.nii.gz", "BraTS-MEN-RT-0012-1_gtv.nii.gz")
    (case,) = find_cases(tmp_path)
    assert (case.convention, case.patient, len(case.reference)) == ("core", "BraTS-MEN-RT-0012", 1)


def test_a_folder_around_each_file_does_not_hide_its_name(tmp_path):
    stem = "BraTS-GLI-00014-000"
    inside = {"t1c": "t1ce", "t1n": "t1", "t2f": "flair", "t2w": "t2"}
    touch(tmp_path, *(f"{stem}/{stem}-{kind}.nii/00000057_brain_{word}.nii" for kind, word in inside.items()),
          f"{stem}/{stem}-seg.nii/00000057_final_seg.nii")  # fmt: skip
    (case,) = find_cases(tmp_path)
    assert (case.name, len(case.images), len(case.reference)) == (stem, 4, 1)


def write_dataset(folder, **content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8-sig")


@pytest.mark.parametrize(
    ("labels", "convention"),
    [
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}, "decathlon"),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3]}, "brats2023"),
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}, "decathlon"),
        ({"0": "background", "1": "necrotic core", "2": "edema", "3": "enhancing"}, "brats2023"),
        ({"background": 0, "lesion": 1}, None),
        ("?", None),
    ],
)
def test_nnunet_s_raw_layout_is_read_with_what_its_dataset_says(tmp_path, labels, convention):
    write_dataset(tmp_path / "D", channel_names={"0": "T1", "1": "T1ce", "2": "T2w", "3": "FLAIR"}, labels=labels)
    touch(tmp_path / "D", *(f"imagesTr/g_{n}_000{i}.nii.gz" for n in (1, 2) for i in range(4)), "labelsTr/g_1.nii.gz")
    first, second = find_cases(tmp_path)
    assert [image.paths[0].name for image in first.images] == [f"g_1_000{i}.nii.gz" for i in range(4)]
    assert [image.modality for image in second.images] == list(ALL)
    assert ([path.parent.name for path in first.reference], second.reference) == (["labelsTr"], ())
    assert first.convention == convention


def test_nnunet_s_channels_may_be_named_by_the_caller_or_known_from_the_decathlon(tmp_path):
    touch(tmp_path / "D/imagesTr", "g_1_0000.nii.gz", "g_1_0001.nii.gz")
    (case,) = find_cases(tmp_path, ["T2", "FLAIR"])
    assert [image.modality for image in case.images] == ["T2", "FLAIR"]
    touch(tmp_path / "E/imagesTr", *(f"BRATS_001_000{i}.nii.gz" for i in range(4)))
    (case,) = find_cases(tmp_path / "E")
    numbers = {image.modality: image.paths[0].name[-8] for image in case.images}
    assert numbers == {"FLAIR": "0", "T1": "1", "T1ce": "2", "T2": "3"}


def test_a_dataset_names_the_channels_of_stacked_images(tmp_path):
    write_dataset(tmp_path, modality={"0": "FLAIR", "1": "T1w"}, labels={"0": "background"})
    touch(tmp_path, "imagesTr/anna.nii.gz", "labelsTr/anna.nii.gz")
    (case,) = find_cases(tmp_path)
    assert {image.modality: image.channel for image in case.images} == {"FLAIR": 0, "T1": 1}
    assert len(case.reference) == 1


# ------------------------------------------------------------------------------------------------------- BIDS


def test_contrast_may_be_an_acquisition_and_later_runs_are_noted(tmp_path):
    names = ("acq-pre_T1w", "acq-gd_T1w", "run-1_T2w", "run-2_T2w", "FLAIR")
    touch(tmp_path / "sub-01/anat", *(f"sub-01_{name}.nii.gz" for name in names))
    (case,) = find_cases(tmp_path)
    assert described(case)[0] == {
        "T1": ["sub-01_acq-pre_T1w.nii.gz"], "T1ce": ["sub-01_acq-gd_T1w.nii.gz"], "T2": ["sub-01_run-1_T2w.nii.gz"],
        "FLAIR": ["sub-01_FLAIR.nii.gz"],
    }  # fmt: skip
    assert "'sub-01_run-2_T2w.nii.gz' was left out" in " ".join(case.notes)


def test_a_derivatives_folder_by_itself_is_read_and_beside_raw_scans_noted(tmp_path):
    stem = "derivatives/prep/sub-01/anat/sub-01_space-SRI_desc-preproc"
    touch(
        tmp_path,
        f"{stem}_T1w.nii.gz",
        f"{stem}_FLAIR.nii.gz",
        "derivatives/prep/sub-01/anat/sub-01_desc-brain_mask.nii",
    )
    (case,) = find_cases(tmp_path / "derivatives")
    assert [image.modality for image in case.images] == ["T1", "FLAIR"]
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    (case,) = find_cases(tmp_path)
    assert [image.paths[0].name for image in case.images] == ["sub-01_T1w.nii.gz"]
    assert "sub-01_space-SRI_desc-preproc_T1w.nii.gz' were left out" in case.notes[0]


# ---------------------------------------------------------------------------------------- results of this program


def test_results_beside_the_scans_are_neither_scan_nor_reference(tmp_path):
    record = json.dumps({"case": "P5", "volumes_ml": {}, "labels": {}})
    touch(tmp_path, "P5_t1.nii.gz", "P5_flair.nii.gz", "P5_tumor.nii.gz")
    (tmp_path / "P5_tumor.json").write_text(record)
    (case,) = find_cases(tmp_path)
    assert (len(case.images), case.reference, case.problem) == (2, (), None)
    assert "'P5_tumor.nii.gz' was left out: this program's own result" in case.notes[0]
    touch(tmp_path / "flair", "flair_tumor.nii.gz")
    (tmp_path / "flair/flair_tumor.json").write_text(record)
    with pytest.raises(DataError, match="contains only results of this program"):
        find_cases(tmp_path / "flair")


# -------------------------------------------------------------------------------------------------- several paths


def test_relative_and_absolute_paths_may_be_mixed_and_name_a_file_twice(tmp_path, monkeypatch):
    for folder in ("a/anna", "b/anna"):
        save_nifti(tmp_path / folder / "t1.nii", ramp())
    monkeypatch.chdir(tmp_path)
    cases = find_cases(["a", tmp_path / "b", "a/anna/t1.nii", tmp_path / "a/anna"])
    assert [(case.name, case.problem) for case in cases] == [("a_anna", None), ("b_anna", None)]


# ------------------------------------------------------------------------------ folders that hold something else


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("t1.mnc", "t2.mnc"), r"'t1\.mnc' and 1 more of its kind: a MINC file"),
        (("1.png", "2.png"), "a PNG picture, not a scan"),
        (("swi.nii", "adc.nii"), r"contains no T1, T1ce, T2 or FLAIR, only other sequences such as 'adc\.nii'"),
    ],
)
def test_a_folder_of_something_else_is_refused_by_what_it_holds(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        find_cases(touch(tmp_path, *files))
