"""Errors that a user can fix.

Every message says what is wrong with which value, what was expected, and what to do. Anything that is not a
`BrainTumorError` is a bug and keeps its traceback.
"""

import traceback


class BrainTumorError(Exception):
    """Base of all errors that a user can fix; the text is shown as it is."""


class DataError(BrainTumorError):
    """The images, masks or layers cannot be used as they are."""


class ModelError(BrainTumorError):
    """A model file is missing, damaged or does not fit the images."""


class DescriptionNeeded(ModelError):
    """A model file does not say what its channels are, so the user must."""


class NameTaken(ModelError):
    """Another model already has this name, so the user must choose another one.

    Parameters
    ----------
    name
        The name that is taken.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is another model '{name}' already. Give the new one another name, or remove the old one."
        )
        self.name = name


class SettingsError(BrainTumorError):
    """A setting is impossible, or impossible on this machine."""


def describe_failure(error: BaseException) -> str:
    """Describe in one line why something failed, for a run that goes on without it.

    Returns
    -------
    str
        Without the words of an unexpected error: they may be a patient's, out of a header or a file's name.
    """
    if isinstance(error, BrainTumorError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There was not enough memory. Close other programs, or use a computer with more memory."
    return f"Unexpected error: {name_kind(error)}."


def name_kind(error: BaseException) -> str:
    """Return an unexpected error's type, and of an operating system's error what the system says, without the file."""
    said = error.strerror if isinstance(error, OSError) and error.errno is not None else None
    return f"{type(error).__name__}{f': {said}' if said else ''}"


def describe_origin(error: BaseException) -> str:
    """Describe where in the code an unexpected error arose, as a traceback does, but without the error's own words.

    Returns
    -------
    str
        For the error and each that led to it, the first one first, the lines of code and its type.
    """
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = f"{describe_origin(earlier)}which led to\n" if earlier is not None else ""
    return f"{before}{''.join(traceback.format_tb(error.__traceback__))}{name_kind(error)}\n"
