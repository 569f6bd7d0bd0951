import gc
import threading
from collections.abc import Iterator

from napari.utils import progress
from qtpy.QtCore import QObject

from napari_braintumor.engine.events import Noted, SlicesDone
from napari_braintumor.widgets.shared import jobs
from napari_braintumor.widgets.shared.jobs import Job


def go_on() -> Iterator[int]:
    number = 0
    while True:
        yield (number := number + 1)


def test_while_jobs_run_full_collections_pass_over_what_was_there_before(qtbot) -> None:
    owner = QObject()
    may_end = [threading.Event(), threading.Event()]

    def work(number: int) -> Iterator[int]:
        yield number
        assert may_end[number].wait(20)

    ended: list[int] = []
    begun: list[int] = []
    for number in range(2):
        job = Job(owner, "work", work, number)
        job.happened.connect(begun.append)
        job.ended.connect(lambda number=number: ended.append(number))
        job.start()
    qtbot.waitUntil(lambda: len(begun) == 2)
    assert gc.get_freeze_count() > 1000
    may_end[1].set()
    qtbot.waitUntil(lambda: ended == [1])
    assert gc.get_freeze_count() > 1000  # the other one still runs
    may_end[0].set()
    qtbot.waitUntil(lambda: len(ended) == 2)
    assert gc.get_freeze_count() == 0


def test_a_job_that_fails_or_is_canceled_gives_the_collector_back(qtbot) -> None:
    owner = QObject()

    def fail() -> Iterator[int]:
        yield 1
        raise ValueError("no")

    failures: list[object] = []
    ended: list[bool] = []
    job = Job(owner, "fail", fail)
    job.failed.connect(failures.append)
    job.ended.connect(lambda: ended.append(True))
    job.start()
    qtbot.waitUntil(lambda: len(ended) == 1)
    assert failures
    endless = Job(owner, "go on", go_on)
    endless.happened.connect(lambda _: endless.cancel())
    endless.ended.connect(lambda: ended.append(True))
    endless.start()
    qtbot.waitUntil(lambda: len(ended) == 2)
    assert gc.get_freeze_count() == 0


def test_a_job_that_napari_quits_gives_the_collector_back(qtbot) -> None:
    owner = QObject()
    job = Job(owner, "go on", go_on)
    ended: list[bool] = []
    job.ended.connect(lambda: ended.append(True))
    job.happened.connect(lambda _: job._worker.quit())  # as napari does when it is closed
    job.start()
    qtbot.waitUntil(lambda: ended == [True])
    assert gc.get_freeze_count() == 0


def test_of_quick_progress_the_first_and_the_last_are_shown(qtbot) -> None:
    def hurry() -> Iterator[SlicesDone]:
        for done in range(1, 41):
            yield SlicesDone(done, 40)

    shown: list[int] = []
    ended: list[bool] = []
    owner = QObject()
    job = Job(owner, "hurry", hurry)
    job.happened.connect(lambda event: shown.append(event.done))
    job.ended.connect(lambda: ended.append(True))
    job.start()
    qtbot.waitUntil(lambda: ended == [True])
    assert (shown[0], shown[-1]) == (1, 40)
    assert len(shown) < 40


def test_where_progress_halts_the_latest_is_shown_soon(qtbot) -> None:
    may_end = threading.Event()

    def halt() -> Iterator[SlicesDone]:
        for done in range(1, 5):
            yield SlicesDone(done, 40)
        assert may_end.wait(20)

    owner = QObject()
    shown: list[int] = []
    ended: list[bool] = []
    job = Job(owner, "halt", halt)
    job.happened.connect(lambda event: shown.append(event.done))
    job.ended.connect(lambda: ended.append(True))
    job.start()
    qtbot.waitUntil(lambda: shown == [1, 4])
    may_end.set()
    qtbot.waitUntil(lambda: ended == [True])


def test_other_events_are_all_shown_however_quick(qtbot) -> None:
    def show_text() -> Iterator[Noted]:
        yield SlicesDone(1, 3)
        for number in range(20):
            yield Noted(str(number))

    shown: list[object] = []
    ended: list[bool] = []
    owner = QObject()
    job = Job(owner, "show", show_text)
    job.happened.connect(shown.append)
    job.ended.connect(lambda: ended.append(True))
    job.start()
    qtbot.waitUntil(lambda: ended == [True])
    assert shown[1:] == [Noted(str(number)) for number in range(20)]


def test_only_a_job_that_takes_long_is_among_the_activities(qtbot, monkeypatch) -> None:
    owner = QObject()
    for seconds, expected in ((60.0, 0), (0.0, 1)):
        monkeypatch.setattr(jobs, "ACTIVITY_S", seconds)
        seen: list[int] = []
        ended: list[bool] = []
        may_end = threading.Event()

        def work(may_end: threading.Event = may_end) -> Iterator[SlicesDone]:
            yield SlicesDone(1, 2)
            assert may_end.wait(20)
            yield SlicesDone(2, 2)

        job = Job(owner, "work", work)
        job.happened.connect(lambda _, seen=seen: seen.append(1))
        job.ended.connect(lambda ended=ended: ended.append(True))
        job.start()
        qtbot.waitUntil(lambda seen=seen: bool(seen))
        assert len(progress._all_instances) == expected
        may_end.set()
        qtbot.waitUntil(lambda ended=ended: ended == [True])
        assert not progress._all_instances


def test_a_job_that_ends_while_napari_adds_its_bar_leaves_none(qtbot, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "ACTIVITY_S", 0.0)
    bar = jobs._Bar("work")

    class Ending(progress):
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **more)
            bar.close()  # napari lets Qt deliver events meanwhile

    monkeypatch.setattr(jobs, "progress", Ending)
    bar.move(1, 2)
    assert not progress._all_instances
