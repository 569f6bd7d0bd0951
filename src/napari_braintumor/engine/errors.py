"""What a user can mend.

Every message says what is wrong with which value, what was expected, and what to do. Anything that is not a
`BrainTumorError` is a bug and keeps its traceback.
"""


class BrainTumorError(Exception):
    """Base of all errors that a user can mend; its text is shown as it stands."""


class DataError(BrainTumorError):
    """The images, masks or layers cannot be used as they are."""


class ModelError(BrainTumorError):
    """A model file is missing, damaged or does not fit the images."""


class DescriptionNeeded(ModelError):
    """A model file does not tell what its channels are, so somebody must."""


class NameTaken(ModelError):
    """Another model has the name already, so somebody must give another one.

    Parameters
    ----------
    name
        The name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is another model '{name}' already. Give the new one another name, or remove the old one."
        )
        self.name = name


class SettingsError(BrainTumorError):
    """A setting is impossible, or impossible on this machine."""


def describe_failure(error: BaseException) -> str:
    """Say why something did not work, in one line, for a run that goes on without it."""
    if isinstance(error, BrainTumorError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There was not enough memory for it. Close other programs, or use a computer with more memory."
    words = " ".join(str(error).split())
    return f"An error that was not expected: {type(error).__name__}{f': {words}' if words else ''}."
