import run  # of benchmarks


def test_the_page_of_measurements_is_made_of_their_records() -> None:
    assert run.PAGE.read_text(encoding="utf-8") == run.compose(run.RECORDS)


def test_every_part_has_been_measured() -> None:
    assert {path.stem for path in run.RECORDS.glob("*.json")} == set(run.PARTS)
