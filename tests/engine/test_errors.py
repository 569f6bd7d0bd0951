"""What is said of unexpected errors is enough to find them, and holds none of their words."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from napari_braintumor.engine.errors import DataError, describe_failure, describe_origin, name_kind

NAME = "".join(("SEC", "RET^NAME"))  # so that the line of code that a traceback quotes does not hold it


def raise_value() -> None:
    raise ValueError(f"cannot read {NAME}")


def raise_key() -> None:
    _ = {}[NAME]


def raise_file() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", f"/scans/{NAME}/1.dcm")


def raise_other_for_it() -> None:
    try:
        raise_value()
    except ValueError as error:
        raise RuntimeError(f"{error}, again") from error


def raise_other_while_it_is_handled() -> None:
    try:
        raise_key()
    except KeyError:
        raise_value()


def raise_noted() -> None:
    error = ValueError(NAME)
    error.add_note(f"of {NAME}")
    raise error


def raise_group() -> None:
    raise ExceptionGroup(NAME, [ValueError(NAME)])


WAYS = (
    raise_value,
    raise_key,
    raise_file,
    raise_other_for_it,
    raise_other_while_it_is_handled,
    raise_noted,
    raise_group,
)


def caught(fail: Callable[[], None]) -> Exception:
    try:
        fail()
    except Exception as error:  # noqa: BLE001  any of them
        return error
    raise AssertionError


@pytest.mark.parametrize("fail", WAYS, ids=lambda fail: fail.__name__)
def test_the_words_of_an_unexpected_error_are_left_out(fail: Callable[[], None]):
    error = caught(fail)
    for text in (describe_failure(error), describe_origin(error), name_kind(error)):
        assert NAME not in text
        assert type(error).__name__ in text
    assert f"in {fail.__name__}" in describe_origin(error)


def test_errors_that_led_to_another_come_first():
    text = describe_origin(caught(raise_other_for_it))
    assert text.index("ValueError\nwhich led to\n") < text.index("RuntimeError\n")


def test_what_the_operating_system_says_is_kept():
    assert describe_failure(caught(raise_file)) == "Unexpected error: OSError: No space left on device."


def test_errors_that_a_user_can_mend_are_shown_as_they_are():
    assert describe_failure(DataError("Two masks.")) == "Two masks."
