from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from napari_braintumor.engine.files.patients import WhoIsWho, is_held_out
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.training.plan import TrainPlan, plan_fine_tuning
from napari_braintumor.engine.training.saving import describe_model
from napari_braintumor.engine.training.splits import Split
from napari_braintumor.engine.training.training_cases import Part, TrainingData


def describe(stated: dict[str, str], held_out: tuple[str, ...], parent: ModelCard | None = None) -> ModelCard:
    plan = TrainPlan(name="a", cases=("b",), patients=stated, held_out=held_out)
    who = WhoIsWho({"BraTS2021_01476": "BraTS2021_01476", "LGG_1_2001": "LGG_1"}, stated)
    split = Split(training=tuple(who.find(["BraTS2021_01476"])), validation=("LGG_1",))
    return describe_model(plan, TrainingData((), (), (), (), split, who), {}, nn.Conv2d(1, 1, 1), parent, 1.0)


def held_out_by(card: ModelCard, case: str) -> bool | None:
    """As whoever evaluates one data set alone sees it."""
    return is_held_out(case, card, WhoIsWho({case: case}, card.patients))


def test_a_card_lists_the_other_names_of_its_patients_so_that_no_twin_counts_as_never_seen() -> None:
    card = describe({"BraTS2021_01476": "TCGA_CS_4942"}, held_out=("TCGA_DU_1",))
    assert card.training_patients == ("TCGA_CS_4942",)
    assert card.held_out_patients == ("TCGA_DU_1",)
    assert held_out_by(card, "BraTS2021_01476") is False
    assert held_out_by(card, "TCGA_CS_4942") is False
    assert held_out_by(card, "TCGA_DU_1") is True
    assert held_out_by(card, "somebody") is None
    assert ModelCard.model_validate_json(card.model_dump_json()) == card
    assert not {"patients", "training"} & card.plans[0].keys(), "a plan's names are not stated twice"


def test_a_patient_is_not_held_out_whose_twin_the_parent_was_trained_on() -> None:
    parent = describe({}, held_out=()).model_copy(
        update={"training_patients": ("TCGA_DU_1",), "held_out_patients": ("BraTS2021_9",)}
    )
    card = describe({"BraTS2021_7": "TCGA_DU_1", "TCGA_DU_9": "BraTS2021_9"}, ("BraTS2021_7",), parent)
    assert "TCGA_DU_1" in card.training_patients
    assert card.held_out_patients == ("BraTS2021_9",)
    assert held_out_by(card, "BraTS2021_7") is False
    assert held_out_by(card, "TCGA_DU_9") is True


def test_a_parent_s_card_says_who_is_who_where_the_plan_does_not() -> None:
    parent = describe({"BraTS2021_7": "TCGA_DU_1"}, held_out=("TCGA_DU_1",))
    card = describe({}, held_out=("BraTS2021_7",), parent=parent)
    assert card.held_out_patients == ("TCGA_DU_1",)
    assert card.patients == {"BraTS2021_7": "TCGA_DU_1"}


def test_a_tuned_model_still_knows_what_its_modalities_cannot_show_and_how_its_answers_are_cleaned() -> None:
    parent = ModelStore().find("glioma-u2net").card
    plan = plan_fine_tuning(parent, "glioma-u2net", "tuned", ("b",))
    data = TrainingData((), (), (), (), Split(training=("anna",), validation=()), WhoIsWho({"anna": "anna"}, {}))
    child = describe_model(plan, data, {}, nn.Conv2d(1, 1, 1), parent, 1.0)
    grandchild = describe_model(plan, data, {}, nn.Conv2d(1, 1, 1), child, 1.0)
    for card in (child, grandchild):
        assert card.find_unmeasurable(("FLAIR",)) == parent.find_unmeasurable(("FLAIR",)) != {}
        assert card.min_volume_ml == parent.min_volume_ml > 0
        assert not any(metric.held_out for metric in card.metrics), "the parent's figures are not its own"
        assert card.doubts


@pytest.mark.parametrize(
    ("known", "shown", "expected"),
    [
        (("T1", "FLAIR"), (), ("T1", "FLAIR")),
        (("T1", "FLAIR"), ("T2", "FLAIR"), ("T1", "T2", "FLAIR")),
        ((), ("T1ce",), ("T1ce",)),
        (None, ("T2",), None),
    ],
)
def test_a_tuned_model_has_seen_with_the_skull_what_its_parent_and_its_own_cases_show(known, shown, expected) -> None:
    parent = ModelStore().find("glioma-u2net").card.model_copy(update={"seen_with_skull": known})
    plan = plan_fine_tuning(parent, "glioma-u2net", "tuned", ("b",))
    case = SimpleNamespace(patient="anna", group="other", known=np.ones(3, bool), with_skull=shown)
    learned = (Part(case, np.arange(1)),)
    data = TrainingData(learned, (), (), (), Split(training=("anna",), validation=()), WhoIsWho({"anna": "anna"}, {}))
    assert describe_model(plan, data, {}, nn.Conv2d(1, 1, 1), parent, 1.0).seen_with_skull == expected


def test_a_model_trained_anew_claims_nothing_of_the_one_it_started_from() -> None:
    parent = ModelStore().find("glioma-u2net").card
    card = describe({}, held_out=(), parent=parent)
    assert card.find_unmeasurable(("FLAIR",)) == {}
    assert card.seen_with_skull is None
