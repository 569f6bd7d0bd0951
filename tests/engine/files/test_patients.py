import unicodedata

import pytest

from napari_braintumor.engine.files.patients import WhoIsWho

CASES = {
    "TCGA_CS_4942_19970222": "TCGA_CS_4942",
    "TCGA_CS_4942_19980101": "TCGA_CS_4942",
    "BraTS2021_01476": "BraTS2021_01476",
    "BraTS-GLI-00005-000": "BraTS-GLI-00005",
    "BraTS-GLI-00005-001": "BraTS-GLI-00005",
    "Müller": "Müller",
    "Möller": "Möller",
    "张伟": "张伟",
}


@pytest.mark.parametrize(
    "stated",
    [
        {"BraTS2021_01476": "TCGA_CS_4942"},
        {"TCGA_CS_4942": "BraTS2021_01476"},
        {"BraTS2021_01476": "TCGA_CS_4942_19970222"},
        {"TCGA_CS_4942_19980101": "BraTS2021_01476"},
        {"BraTS2021_01476": "anna", "TCGA_CS_4942": "anna"},
        {"BraTS2021_01476": "anna", "anna": "TCGA_CS_4942"},
        {"BraTS2021_01476": "TCGA_CS_4942", "TCGA_CS_4942": "BraTS2021_01476"},
    ],
)
def test_two_names_of_one_person_are_one_patient_however_it_is_stated(stated) -> None:
    who = WhoIsWho(CASES, stated)
    patients = {who.patient_of(name) for name in (*list(CASES)[:3], "TCGA_CS_4942")}
    assert len(patients) == 1
    for name in (*list(CASES)[:3], "TCGA_CS_4942"):
        assert who.find([name]) == patients
        assert who.knows(name)
    assert {who.patient_of(name) for name in list(CASES)[3:5]} == {"BraTS-GLI-00005"}
    later = WhoIsWho({"BraTS2021_01476": "BraTS2021_01476"}, who.stated)
    assert later.patient_of("BraTS2021_01476") in later.find(patients), "a card tells it to whoever has one set only"


def test_the_name_that_others_lead_to_is_the_patient_s() -> None:
    assert WhoIsWho(CASES, {"BraTS2021_01476": "TCGA_CS_4942"}).patient_of("BraTS2021_01476") == "TCGA_CS_4942"
    assert WhoIsWho(CASES, {}).patient_of("TCGA_CS_4942_19980101") == "TCGA_CS_4942"


def test_one_stated_case_takes_its_other_time_points_along() -> None:
    who = WhoIsWho(CASES, {"BraTS-GLI-00005-001": "anna"})
    assert who.patient_of("BraTS-GLI-00005-000") == who.patient_of("BraTS-GLI-00005-001") == "anna"


def test_where_every_case_of_a_name_is_stated_to_be_another_person_names_no_longer_count() -> None:
    who = WhoIsWho(CASES, {"BraTS-GLI-00005-000": "anna", "BraTS-GLI-00005-001": "bert"})
    assert who.patient_of("BraTS-GLI-00005-000") == "anna"
    assert who.patient_of("BraTS-GLI-00005-001") == "bert"
    assert who.find(["BraTS-GLI-00005"]) == {"anna", "bert"}


def test_names_are_the_same_however_their_accents_are_stored() -> None:
    apart = {unicodedata.normalize("NFD", name): unicodedata.normalize("NFD", who) for name, who in CASES.items()}
    assert WhoIsWho(apart, {}).knows("Müller")
    assert WhoIsWho(CASES, {}).find([unicodedata.normalize("NFD", "Müller")]) == {"Müller"}
    assert len({WhoIsWho(apart, {}).patient_of(name) for name in CASES}) == 6


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tcga_cs_4942", "TCGA_CS_4942"),
        ("TCGA-CS-4942", "TCGA_CS_4942"),
        ("TCGA CS 4942", "TCGA_CS_4942"),
        ("TCGA_CS", "TCGA_CS_4942"),
        ("TCGA_CS_4942_20010101", "TCGA_CS_4942"),
        ("TGCA_CS_4942", "TCGA_CS_4942"),
        ("BraTS2021_1476", "BraTS2021_01476"),
        ("BraTs2021_01476", "BraTS2021_01476"),
        ("BrTS2021_01476", "BraTS2021_01476"),
        ("BraTS-GLI-5", "BraTS-GLI-00005"),
        ("Muller", "Müller"),
        ("TCGA_CS_4941", None),
        ("BraTS2021_14761", None),
        ("PGBM-019", None),
        ("李雷", None),
    ],
)
def test_a_slip_in_a_name_is_noticed_but_another_number_is_another_person(name: str, meant: str | None) -> None:
    who = WhoIsWho(CASES, {})
    assert not who.knows(name)
    assert who.find_similar(name) == meant
    assert WhoIsWho(CASES, {name: name}).find_similar(name) is None
