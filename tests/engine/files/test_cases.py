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


def test_the_early_brats_names_are_found_though_metaimage_is_not_read(tmp_path):
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
    with pytest.raises(DataError, match=r"is a MetaImage file\. MetaImage is not read yet\. Convert it to NIfTI"):
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
    case, unlabelled = find_cases(tmp_path)
    assert (case.name, case.group, case.convention) == ("BRATS_001", "decathlon", "decathlon")
    assert {image.modality: image.channel for image in case.images} == {"FLAIR": 0, "T1": 1, "T1ce": 2, "T2": 3}
    assert [path.parent.name for path in case.reference] == ["labelsTr"]
    assert unlabelled.reference == ()


def test_bids_images_are_told_from_brain_masks_and_derivatives(tmp_path):
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


def test_patients_side_by_side_in_a_folder_are_told_apart_by_their_names(tmp_path):
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
    touch(folder, "BraTS2021_00000_t1.nii", "registered_t1.nii", "registered_flair.nii", "flair.nii")
    assert [case.name for case in find_cases(tmp_path)] == ["BraTS2021_00000", "BraTS2021_00000_2", "registered"]


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
    with pytest.raises(DataError, match=r"'ADC' is no known modality\. Expected were T1, T1ce, T2, FLAIR"):
        find_cases(tmp_path, ["ADC"])


@pytest.mark.parametrize("name", ["scan.tif", "scan.nii.gz"])
def test_an_unnamed_file_is_refused_with_how_to_name_it(tmp_path, name):
    (save_tiff if name.endswith("tif") else save_nifti)(tmp_path / name, ramp())
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match=f"'{name}' does not say which modality it is.*--modalities T1,FLAIR,T1ce"):
            find_cases(path)


# --------------------------------------------------------------------------------------------- nothing, or too much


def test_a_folder_without_cases_is_refused_with_what_was_looked_for(tmp_path):
    touch(tmp_path, "notes.txt", "a.dcm")
    with pytest.raises(DataError, match=r"No case was found in .*NIfTI.*t1ce.*DICOM \(\.dcm\) .* not read yet"):
        find_cases(tmp_path)


def test_a_folder_of_masks_alone_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds only masks, no images"):
        find_cases(touch(tmp_path, "BraTS2021_00000_seg.nii.gz"))


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match="gone' does not exist"):
        find_cases([tmp_path, tmp_path / "gone"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.dcm", r"is a DICOM file\. DICOM is not read yet"),
        ("a.mha", "MetaImage"),
        ("a.jpg", "is a JPEG picture, not a scan"),
        ("a.xyz", "cannot be read. Expected NIfTI"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        find_cases(tmp_path / name)


def test_two_images_of_one_modality_are_refused(tmp_path):
    touch(tmp_path, "anna_t1.nii", "anna_t1w.nii.gz")
    with pytest.raises(DataError, match=r"Case 'anna' has two T1 images: 'anna_t1\.nii' and 'anna_t1w\.nii\.gz'"):
        find_cases(tmp_path)


def test_two_masks_are_refused(tmp_path):
    touch(tmp_path, "anna_t1.nii", "anna_seg.nii", "anna_mask.nii")
    with pytest.raises(DataError, match=r"Case 'anna' has two masks: 'anna_mask\.nii' and 'anna_seg\.nii'"):
        find_cases(tmp_path)
