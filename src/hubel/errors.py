"""Errors with a message and a hint.

Commands print the two lines and exit with 1; libraries catch :class:`HubelError`.
"""

from hubel.terminal_text import printable

_MAX_LENGTH = 2_000  # characters of a message


class HubelError(Exception):
    """Something in the data, a file or a model is wrong.

    Args:
        message: one line that names the file (or class, or option) and what is wrong with it. Line breaks and other
            control characters, which names from files may hold, become visible escapes.
        hint: one line that says what to do.
    """

    def __init__(self, message: str, hint: str) -> None:
        if len(message) > _MAX_LENGTH:  # a forged file can make a name or a value of any length
            message = f"{message[: _MAX_LENGTH // 2]} … {message[-_MAX_LENGTH // 4 :]}"
        message = printable(message)
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}"


class UsageError(HubelError):
    """An option has a value that it cannot have; commands exit with 2."""


class ImageError(HubelError):
    """An image file cannot be read: it is missing, empty, truncated, too large, or not an image."""


class DataError(HubelError):
    """A data set cannot be used: no images, a single class, an unknown layout, a missing split."""


class ResumableError(DataError):
    """What ended a training can be mended, and the run then continues with ``--resume``, as the hint says."""


class ModelError(HubelError):
    """A model name is unknown, a saved model is damaged, or the model does not fit the request."""


class WeightsError(HubelError):
    """Weights are missing, damaged, of another architecture, or could not be downloaded."""


class MissingExtraError(HubelError):
    """An optional dependency is not installed; the hint is the install command."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs packages that are not installed", f"pip install 'hubel[{extra}]'")
