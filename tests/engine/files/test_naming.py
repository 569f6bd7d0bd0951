import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_braintumor.engine.files.naming import find_modality, read_folder, read_owner
from napari_braintumor.engine.files.owners import find_patient, is_time

T1 = """
t1 T1 t1n T1w T1wi T1-weighted anna_post_t1 c_t1 T1_pre_contrast T1_pre T1pre T1_nativ t1_mprage_sag t1_mprage
mprage 3D_T1_BRAVO tfl t1_tfl3d_1mm SagT1 AxT1 3DT1 rT1 t1_vibe_tra t1_se_tra t1_tirm_cor t1_bet T1_brain
T1_brain_extracted t1_masked T1_skull_strip T1_skull_stripped T1_hd_bet T1_n4 T1_reg_T2 T1_in_FLAIR_space
T1_to_MNI T1w_post_op T1_postop t1_post_surgery anna_postop_t1 t1_post_rt T1_no_contrast T1_without_contrast
T1_w/o_contrast t1_ohne_km t1_vor_km T1_c- T1_nonContrast anna_precontrast_t1 sub-01_acq-pre_T1w T1toFLAIR
t1_registered_to_flair Ｔ１ 張_T1
"""
T1CE = """
t1ce t1c T1Gd t1post post T1_post t1_gd_axial gd_t1 t1_c CT1 ct1_skull_strip t1_mprage_km T1_KM t1_KM_tra
T1_inj T1_injecté T1_gd T1_gad T1_c+ T1C+ T1_+C t1_tra_+gd mprage_post_contrast mprage_gd 3D_T1_BRAVO+C t1_nach_km
t1_mpr_ns_sag_iso_KM T1_contrast T1_with_contrast T1w_CE T1_postcontrast T1wPostContrast T1_enhanced
anna_pre_t1_gd anna_preop_t1ce t1ce_masked t1c_bet T1ce_to_T1 T1c_reg_T1 ce_t1_reg_flair
BraTS-GLI-00000-000-t1c sub-01_acq-gd_T1w sub-01_ce-gadolinium_T1w t1_post_gad T1_post_contrast_brain AxT1ce
t1_vibe_fs_tra_KM
"""
T2 = """
t2 T2 t2w T2wi t2_tse_tra t2_blade_tra AxT2 t2_space_sag_iso T2_reg_T1 T2toT1 T2_to_FLAIR T2_in_T1_space
t2_bet T2_brain rT2 t2_spc_sag T2_post T2_Gd T2-weighted
"""
FLAIR = """
FLAIR t2f flair post_flair 5_t2_flair_tra T2-FLAIR t2_tirm_tra_dark-fluid t2_tirm_dark-fluid_5mm t2_spc_da-fl
t2_spc_da_fl_sag t2_tirm_darkfluid SPACE_FLAIR CUBE_FLAIR AxT2FLAIR t2_space_flair flair_KM FLAIR_reg_T1
flair_to_t1 FLAIR2T1 FLAIR_in_T1 FLAIR_T1_space FLAIR_T1space T2_FLAIR_reg_T1 FLAIR_registered_to_T1ce
flair_on_t1 rFLAIR FLAIR_bet FLAIR_skull_strip brain_tumor_017_flair FLAIR_coreg_mprage flair_resampled_to_t2
FLAIR_2_T1
"""
NOTHING = """
anna flirt1 T1_and_T2 pat04_t1_flair t1_flair t2_tirm_cor t2_ir_tra t2_stir t2star T2*_gre t1map T2map
T1_map T2_map t2_star T1_rho perfusion_T2 rCBV_t1ce
t2_fl2d_hemo ep2d_diff_t2 T1_subtraction swi ADC dwi_b1000 brain_tumor_017 post_op 2019 t3 sub-01_dwi
"""


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        (name, modality)
        for modality, names in (("T1", T1), ("T1ce", T1CE), ("T2", T2), ("FLAIR", FLAIR), (None, NOTHING))
        for name in names.split()
    ],
)
def test_a_modality_is_read_from_the_words_of_a_name_or_not_at_all(name, modality):
    assert find_modality(name) == modality


@pytest.mark.parametrize(
    ("name", "modality"), [("T1 post", "T1ce"), ("gd t1", "T1ce"), ("T1 and T2", None), ("", None)]
)
def test_words_may_be_set_apart_by_anything(name, modality):
    assert find_modality(name) == modality


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30))
def test_any_name_can_be_read(name):
    find_modality(name)
    read_owner(name)
    find_patient(name)


@pytest.mark.parametrize(
    ("names", "modalities"),
    [
        ("pat04_t1_t1 pat04_t1_flair pat04_t1_t2 pat04_t1_t1ce", "T1 FLAIR T2 T1ce"),
        ("pat04_t1_flair pat04_t1_t1 pat04_t2_flair pat04_t2_t1", "FLAIR T1 FLAIR T1"),
        ("t1_flair t1_t2w", "FLAIR T2"),
        ("flair_t1 t2_t1 t1ce_t1", "FLAIR T2 T1ce"),
        ("t1_flair t1_mprage", "None T1"),
        ("anna_t1_pre anna_t1_post anna_flair_pre anna_flair_post", "T1 T1 FLAIR FLAIR"),
        ("anna_t1_pre anna_t1_post anna_flair", "T1 T1ce FLAIR"),
        ("T1 FLAIR_reg_T1 T2_reg_T1", "T1 FLAIR T2"),
    ],
)
def test_names_side_by_side_distinguish_a_time_point_called_t1_from_the_modality(names, modalities):
    assert [str(words.modality) for words in read_folder(names.split())] == modalities.split()


def test_files_of_one_time_point_called_t1_have_the_same_name_left():
    words = read_folder(["pat04_t1_t1", "pat04_t1_flair", "pat04_t2_flair", "pat04_t2_t1ce"])
    assert ["_".join(w.rest) for w in words] == ["pat04_t1", "pat04_t1", "pat04_t2", "pat04_t2"]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("anna_t1", "anna_flair"), ("anna_t1", "anna_seg"), ("T1 [anna]", "FLAIR [anna]"), ("Anna_t1", "anna_flair"),
        ("anna_t1_mprage_sag", "anna_t2_tirm_tra_dark-fluid"), ("anna_t1_bet", "anna_FLAIR_reg_T1"),
        ("anna_brain_t1", "anna_tumor_mask"), ("Müller_t1", unicodedata.normalize("NFD", "Müller_flair")),
        ("张伟_t1", "张伟_flair"), ("Иванов t1", "иванов flair"), ("anna_t1_KM", "anna_T1"),
        ("हिन्दी_t1", "हिन्दी_flair"), ("anna_flair", "anna_gtv"),
    ],
)  # fmt: skip
def test_what_is_left_of_the_names_of_one_case_is_equal(one, two):
    assert read_owner(one) == read_owner(two) != ""


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("anna_t1", "bert_flair"), ("Müller_t1", "Möller_flair"), ("张伟_t1", "李娜_flair"), ("Иванов_t1", "Петров_t1"),
        ("P7_t1", "P71_flair"), ("sub-01_t1", "sub-02_flair"), ("case1_t1", "case2_t1"),
        ("anna_2019_t1", "anna_2020_t1"),
        ("glioma_001_t1", "glioma_002_flair"), ("🐈_t1", "🐕_flair"), ("anna_scan1_t1", "anna_scan2_flair"),
        ("हिन्दी_t1", "हिन्दु_flair"), ("001_t1", "002_flair"),
    ],
)  # fmt: skip
def test_what_is_left_of_the_names_of_two_cases_differs(one, two):
    assert read_owner(one) != read_owner(two)


# ------------------------------------------------------------------------------------------------------ patients


@pytest.mark.parametrize(
    ("patient", "visits"),
    [
        (
            "P7",
            "P7_20190312 P7_2019-03-12 P7_2019.03.12 P7_12-03-2019 P7_scan1 P7_scan_2 P7_time1 P7_timepoint-2 P7_tp1",
        ),
        ("P7", "P7_baseline P7_followup P7_follow-up_2 P7_fu1 P7_pre P7_post P7_preop P7_post-op P7_before P7_after"),
        ("P7", "P7scan1 P7time2 P7_t1 P7_visit3 P7_week12 P7_month_6 P7_20190312_scan2 P7-20190312120000 P7"),
        ("sub-01", "sub-01_ses-2 sub-01_ses-pre sub-01_session_1"),
        ("Patient-001", "Patient-001_week-000-1 Patient-001_week-044"),
        ("PatientID_0003", "PatientID_0003_Timepoint_1 PatientID_0003_Timepoint_5"),
        ("100001", "100001_time1 100001_time2"),
        ("张伟", "张伟_20190312 张伟_baseline"),
        ("TCGA_CS_4941", "TCGA_CS_4941_19960909 TCGA-CS-4941_native tcga-cs-4941"),
    ],
)
def test_visits_that_a_name_shows_are_one_patient(patient, visits):
    assert {find_patient(visit) for visit in visits.split()} == {patient}


@pytest.mark.parametrize(
    "names",
    [
        "P7 P71 P17", "case1 case2 case12", "case_1 case_2", "P7_1 P7_2", "glioma_scan_1 glioma_scan_2",
        "sub-01 sub-02",
        "scan1 scan2", "P7_20190312 P71_20190312 P8_20190312", "anna_bert anna_carl", "patient_1_pre patient_2_pre",
        "TCGA_CS_4941 TCGA_CS_49412", "Müller Möller", "19880412 19900103", "UPENN_1_11 UPENN_2_11",
    ],
)  # fmt: skip
def test_different_patients_stay_apart(names):
    assert len({find_patient(name) for name in names.split()}) == len(names.split())


@pytest.mark.parametrize(
    "name", ["2019-03-12", "20190312", "baseline", "followup", "ses-2", "scan1", "week-000-1", "pre"]
)
def test_a_folder_may_say_only_when(name):
    assert is_time(name)
    assert not is_time(f"anna_{name}")
