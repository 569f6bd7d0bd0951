import gc
import threading
from collections.abc import Iterator

from qtpy.QtCore import QObject

from napari_braintumor.widgets._jobs import Job


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


def test_a_job_that_fails_or_is_cancelled_gives_the_collector_back(qtbot) -> None:
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
