import gpu  # of benchmarks
import run  # of benchmarks


def test_the_page_of_measurements_is_made_of_their_records() -> None:
    assert run.PAGE.read_text(encoding="utf-8") == run.compose(run.RECORDS)


def test_every_part_has_been_measured() -> None:
    there = {path.stem for path in run.RECORDS.glob("*.json")}
    assert set(run.PARTS) - {"gpu"} <= there <= set(run.PARTS)  # no card was at hand yet


def test_the_section_of_a_gpu_leaves_out_what_there_was_no_time_for() -> None:
    result = {
        "device": "A card",
        "cores": 16,
        "clicks": {"cuda": {"first": 6.25, "second": 0.31}, "cpu": {}},
        "cases": {"cuda": {"ours": {"first": 3.0, "later": 0.4, "runs": 4}}},
        "training": [
            {"plan": "glioma_u2net_long", "batch": 64, "drawn": 3000.0, "same": 3200.0, "waiting": 0.0625},
            {"plan": "glioma_unet_long"},
        ],
    }
    text = gpu.describe(result)
    assert "| cuda | 6.25 | 0.31 | 3.00 | 0.40 | – | – |" in text
    assert "| glioma_u2net_long | 64 | 3000 | 3200 | – | – | 6% |" in text
    assert "| glioma_unet_long | – | – | – | – | – | – |" in text
