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


class SettingsError(BrainTumorError):
    """A setting is impossible, or impossible on this machine."""
