"""What a series shows, by its headers: the words of scanners, the contrast agent, the times, the kind of image."""

from dataclasses import replace
from pathlib import Path

import pytest

from napari_braintumor.engine.files.choosing_series.guessing import guess_examination, guess_modality
from napari_braintumor.engine.files.series import Series


def series(description: str = "", **fields: object) -> Series:
    return replace(Series((Path("im1"),), "dicom", description or "key", description=description, slices=24), **fields)


@pytest.mark.parametrize(
    ("descriptions", "modality"),
    [
        (
            "t1_mprage_sag_p2_iso|Ax T1 SE|SAG T1 BRAVO|SPGR 3D AX|sT1W_3D_TFE|T1W_SE|AX T1 FLAIR|Sag T1 FLAIR|"
            "AX T1 PRE|T1 vor KM|t1_nativ|T1 W/O|IR_FSPGR|t1_fl2d_tra|T1 C-|AX T1 PRE CONTRAST|T1 FA 15|"
            "t1_mp2rage_sag_UNI",
            "T1",
        ),
        (
            "AX T1 MPRAGE +C|t1_mprage_sag_p2_iso_km|Ax T1 SE POST|AX BRAVO POST|SAG 3D FSPGR BRAVO +GAD|T1 axial C+|"
            "T1W_3D_TFE_GADO|T1 nach KM|WIP T1W_3D_FFE Gd SENSE|Post contrast axial|AX T1 FLAIR + C|T1 apres injection|"
            "Stealth FSPGR POST|COR T1 POST FS",
            "T1ce",
        ),
        ("T2 TSE TRA|AX T2 FSE|AX T2 PROPELLER|t2_blade_tra|T2W_TSE|Sag T2 Cube|T2 Space|t2_tse_tra_fs|T2 DRIVE", "T2"),
        (
            "AX T2 FLAIR|t2_tirm_tra_dark-fluid|t2_spc_da-fl_sag_p2_iso|SAG CUBE FLAIR|3D FLAIR VISTA|T2W_FLAIR_SPIR|"
            "AX FLAIR POST|FLAIR_longTR|Dark Fluid",
            "FLAIR",
        ),
    ],
)
def test_the_words_of_scanners_name_the_modality(descriptions: str, modality: str):
    for description in descriptions.split("|"):
        guess = guess_modality(series(description))
        assert (guess.modality, guess.sure) == (modality, True), description
        assert "the description says" in guess.reason


@pytest.mark.parametrize(
    ("descriptions", "what"),
    [
        ("localizer|3-PLANE LOC|Survey_SHC|AAHead_Scout_64ch|3 Plane Localizer|T2 HASTE LOC", "a scout"),
        ("AX DWI|DTI 64 dir|B1000|resolve_3scan_trace", "a diffusion scan"),
        ("ep2d_diff_tra_ADC|dADC|eADC|FA|ColFA|Apparent Diffusion Coefficient (mm2/s)|Fractional Aniso.", "diffusion"),
        ("ep2d_perf_MoCo|relCBV|rCBV map|TTP|pcasl|DSC PERF|T1 DCE|AX PERFUSION|MTT", "a perfusion"),
        ("SWI_Images|AX SWAN|Pha_Images|Mag_Images|AX T2* GRE|AX T2 GRE|t2_fl2d_tra_hemo", "susceptibility or phase"),
        ("AX 3D TOF|MRA|MIP|venogram", "vessels"),
        ("sub_t1_km|t1_se_tra_SUB|Subtraction", "the difference of two scans"),
        ("T1 MAPPING|GRE_field_mapping|T2 map", "a map"),
        ("STIR|AX T2 STIR|3D DIR", "an inversion recovery that is not FLAIR"),
        ("Screen Save|Phoenix Zip Report|PosDisp: [3] t2_tse_tra", "a picture for people"),
        ("phantom|ACR T1|QA", "a phantom"),
        ("svs_se_135|csi_slaser", "a spectrum"),
        ("PD TSE|AXIAL PD", "proton density"),
        ("ciss|FIESTA|t2_ci3d", "cisterns"),
        ("BOLD motor|fMRI", "brain function"),
    ],
)
def test_scans_that_are_none_of_the_four_are_named(descriptions: str, what: str):
    for description in descriptions.split("|"):
        guess = guess_modality(series(description))
        assert guess.modality is None, description
        assert what in guess.other, description


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "a scout"),
        ({"image_type": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC", "NORM")}, "diffusion"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "P", "NORM")}, "phase"),
        ({"image_type": ("DERIVED", "SECONDARY", "RCBV")}, "perfusion"),
        ({"image_type": ("DERIVED", "SECONDARY", "SUBTRACTION")}, "difference"),
        ({"b_value": 1000.0}, "a diffusion scan"),
        ({"kind": "CT"}, "a CT scan"),
        ({"kind": "SR"}, "a report"),
        ({"kind": "DOC"}, "a document"),
        ({"kind": "OT"}, "a picture for people"),
        ({"kind": "XA"}, "an object of the kind XA"),
        ({"slices": 1}, "only 1 slice"),
    ],
)
def test_headers_overrule_a_good_description(fields: dict[str, object], what: str):
    assert guess_modality(series("AX T1")).modality == "T1"
    guess = guess_modality(series("AX T1", **fields))
    assert guess.modality is None
    assert what in guess.other


def times(te: float, tr: float, ti: float | None = None, flip: float | None = None, **fields: object) -> Series:
    return series(
        fields.pop("description", ""),
        echo_time_ms=te, repetition_time_ms=tr, inversion_time_ms=ti, flip_angle_deg=flip, **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scan", "modality", "sure"),
    [
        (times(120, 9000, 2500), "FLAIR", True),
        (times(390, 5000, 1800), "FLAIR", True),
        (times(100, 5500), "T2", False),
        (times(400, 3200), "T2", False),
        (times(12, 600), "T1", False),
        (times(2.98, 2300, 900, 9), "T1", False),
        (times(3.2, 8, None, 12), "T1", False),
        (times(8, 2000, 860), "T1", False),
        (times(2.3, 2100, None, 8, volumetric=True), "T1", False),
        (times(20, 3000), None, False),
        (times(25, 700, None, 20), None, False),
        (times(60, 4500, 150), None, False),
        (times(4, 25, None, 20), None, False),
    ],
)
def test_times_name_the_modality_where_words_do_not(scan: Series, modality: str | None, sure: bool):
    guess = guess_modality(scan)
    assert (guess.modality, guess.sure) == (modality, sure)
    assert "ms" in guess.reason or "neither" in guess.reason


def test_words_and_times_that_agree_are_both_the_reason():
    guess = guess_modality(times(120, 9000, 2500, description="AX T2 FLAIR"))
    assert guess.sure
    assert guess.reason == "the description says FLAIR, and TE 120 ms, TR 9000 ms and TI 2500 ms fit"


@pytest.mark.parametrize(
    ("scan", "modality"),
    [
        (times(120, 9000, 2500, description="AX T2"), "FLAIR"),
        (times(100, 5000, description="AX T1"), "T1"),
        (times(9, 500, description="AX FLAIR"), "FLAIR"),
        (times(25, 2500, description="AX T2"), None),
        (times(60, 4500, 160, description="t2 tirm cor"), None),
        (times(20, 600, None, 20, description="AX T2 fs"), None),
        (times(14, 500, None, 9, description="AX T1 SE"), "T1"),
        (times(9, 2200, description="AX T1 FLAIR"), "T1"),
        (times(12, 2000, 150, description="AX T1 IR"), "T1"),
    ],
)
def test_times_that_contradict_the_words_leave_a_doubt(scan: Series, modality: str | None):
    guess = guess_modality(scan)
    assert (guess.modality, guess.sure) == (modality, False)
    assert "ms" in guess.reason


def test_a_tirm_is_a_flair_by_its_inversion_time_only():
    assert guess_modality(times(95, 9000, 2400, description="t2_tirm_tra")).modality == "FLAIR"
    assert guess_modality(times(60, 4500, 160, description="t2_tirm_tra")).modality is None
    assert not guess_modality(series("t2_tirm_tra")).sure


def test_a_t1_flair_is_told_from_a_flair_by_its_echo_time():
    assert guess_modality(times(9, 2200, 860, description="AX T1 FLAIR")).modality == "T1"
    assert guess_modality(times(120, 9000, 2400, description="AX FLAIR T1 matched")).modality == "FLAIR"


@pytest.mark.parametrize(
    ("description", "stated", "modality", "sure"),
    [
        ("AX T1", True, "T1ce", True),
        ("AX T1", False, "T1", True),
        ("AX T1", None, "T1", True),
        ("AX T1 PRE", True, "T1", True),
        ("AX T1 POST", None, "T1ce", True),
        ("AX T1 POST", False, "T1ce", False),
        ("AX FLAIR", True, "FLAIR", True),
        ("AX T2", True, "T2", True),
    ],
)
def test_contrast_agent_counts_for_t1_and_words_count_before_headers(
    description: str, stated: bool | None, modality: str, sure: bool
):
    guess = guess_modality(series(description, contrast=stated))
    assert (guess.modality, guess.sure) == (modality, sure)


def test_the_protocol_counts_if_the_description_is_silent_but_not_for_contrast_agent():
    guess = guess_modality(series("series 4", protocol="t1_tse_tra_km"))
    assert guess.modality == "T1"
    assert "protocol" in guess.reason


def examination(*descriptions: str, **fields: object) -> list[str | None]:
    scans = [series(text, number=i, **fields) for i, text in enumerate(descriptions, start=1)]
    return [guess.modality for guess in guess_examination(scans)]


def test_a_t1_after_one_with_contrast_agent_has_it_too():
    assert examination("AX T1", "AX FLAIR", "AX T1 POST", "COR T1") == ["T1", "FLAIR", "T1ce", "T1ce"]


def test_a_t1_that_states_no_agent_stays_t1_wherever_it_comes():
    scans = [series("AX T1 POST", number=1), series("COR T1", number=2, contrast=False)]
    assert guess_examination(scans)[1].modality == "T1"


def test_of_two_t1_with_one_description_the_later_is_probably_with_contrast_agent():
    scans = [series(text, number=i) for i, text in enumerate(("AX T1", "AX T2", "AX FLAIR", "ax_t1"))]
    first, *_, last = guess_examination(scans)
    assert (first.modality, first.sure) == ("T1", True)
    assert (last.modality, last.sure) == ("T1ce", False)
    assert "series 0 is the same scan before other sequences" in last.reason


def test_a_t1_repeated_at_once_is_a_repeat_and_other_t1_are_no_evidence():
    assert examination("AX T1", "AX T1", "AX T2") == ["T1", "T1", "T2"]
    assert examination("SAG T1", "AX T2", "AX T1") == ["T1", "T2", "T1"]


def test_an_agent_that_is_stated_for_every_series_tells_nothing():
    guesses = guess_examination(
        [series(text, number=i, contrast=True) for i, text in enumerate(("AX T1", "AX T2", "AX FLAIR", "AX T1"))]
    )
    assert [guess.modality for guess in guesses] == ["T1", "T2", "FLAIR", "T1ce"]
    assert not guesses[0].sure
    assert not guesses[3].sure
