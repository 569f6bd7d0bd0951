from napari_braintumor.engine.anatomy import Region
from napari_braintumor.engine.models.card import DataSource, Metric, ModelCard
from napari_braintumor.engine.models.card_text import card_as_markdown, headline_metric
from napari_braintumor.engine.models.model_file import read_weights_sha256, save_model

LGG = Metric(data="lgg", region="whole tumor", modalities=("FLAIR",), mean=0.8, low=0.7, high=0.9, n=16, held_out=True)
CARD = ModelCard(
    name="a", architecture="u2net_small", modalities=("FLAIR",), parameters=1_131_181, spacing=(None, 2.0, 2.0),
    regions=(Region(name="whole tumor", label=2, label_name="edema", color="#ffffff", least_ml=0.5),),
    trained_on=(DataSource(name="Some set", patients=7, license="CC0", defines=("whole tumor",)),),
    held_out_patients=("p1", "p2"), metrics=(LGG,), plans=({"loss": "dice", "epochs": 3},), license="CC BY 4.0",
)  # fmt: skip


def test_a_card_shows_all_that_a_reader_wants_to_know() -> None:
    text = card_as_markdown(CARD)
    for said in (
        "U²-Net small, 1,131,181 parameters", "own x 2 x 2 mm", "less than 0.5 mL of whole tumor is discarded",
        "| lgg | whole tumor | all | volume Dice | 0.800 | 0.70 to 0.90 |", "| Some set | 7 | whole tumor | CC0 |",
        "**Never seen** (2): p1, p2", "1. loss dice, epochs 3", "CC BY 4.0", "Not a medical device",
    ):  # fmt: skip
        assert said in text, said


def test_a_card_says_which_other_slices_a_network_sees() -> None:
    text = card_as_markdown(CARD.model_copy(update={"context_mm": 3.0}))
    assert "axial slices at own x 2 x 2 mm (Z, Y, X), with those 3 mm above and below" in text
    assert "above and below" not in card_as_markdown(CARD)


def test_what_a_model_does_with_some_of_its_modalities_stands_in_one_table() -> None:
    def measure(modalities: tuple[str, ...], data: str, region: str, mean: float) -> Metric:
        return LGG.model_copy(update={"modalities": modalities, "data": data, "region": region, "mean": mean})

    both = ("T1ce", "FLAIR")
    metrics = (
        measure(both, "lgg", "whole tumor", 0.9), measure(("FLAIR",), "lgg", "whole tumor", 0.8),
        measure(("FLAIR",), "brats", "tumor core", 0.4), measure(("T1ce",), "brats", "tumor core", 0.7),
    )  # fmt: skip
    text = card_as_markdown(CARD.model_copy(update={"modalities": both, "metrics": metrics}))
    table = text[text.index("| modalities | lgg whole tumor | brats tumor core |") :].splitlines()
    assert table[2:4] == ["| FLAIR | 0.80 | 0.40 |", "| T1ce |  | 0.70 |"]
    assert "| lgg | whole tumor | all | volume Dice | 0.900 |" in text


def test_with_its_file_a_card_shows_size_and_checksum(tmp_path) -> None:
    import torch

    path = save_model(tmp_path / "a.safetensors", {"w": torch.ones(2, 2)}, CARD)
    changed = save_model(tmp_path / "b.safetensors", {"w": torch.ones(2, 2)}, CARD.model_copy(update={"title": "B"}))
    assert read_weights_sha256(path) in card_as_markdown(CARD, path)
    assert read_weights_sha256(path) == read_weights_sha256(changed)


def test_the_headline_is_the_outermost_region_in_the_largest_held_out_set_with_all_modalities() -> None:
    more = {
        "seen": LGG.model_copy(update={"held_out": False, "n": 100}),
        "inner": LGG.model_copy(update={"region": "tumor core", "n": 100}),
        "distance": LGG.model_copy(update={"measure": "HD95, mm", "n": 100}),
        "part": LGG.model_copy(update={"modalities": ("T1",), "n": 100}),
        "few": LGG.model_copy(update={"n": 3}),
    }
    assert headline_metric(CARD.model_copy(update={"metrics": (*more.values(), LGG)})) == LGG
    assert headline_metric(CARD.model_copy(update={"metrics": (more["part"],)})) == more["part"]
    assert headline_metric(CARD.model_copy(update={"metrics": ()})) is None
