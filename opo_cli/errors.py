"""The one error that a user can mend; everything else is a bug and keeps its traceback."""


class OpoError(Exception):
    """A mistake of the user's or of the machine's, told in two lines; exit code 2.

    Args:
        message: one line that names the offending value.
        hint: one line that says what to do; a command where there is one.
    """

    def __init__(self, message: str, hint: str):
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFiniteError(OpoError):
    """Weights, logits or gradients that are NaN or infinite: the same command would end the same
    way."""


class OtherRankError(OpoError):
    """What another rank tells: this one ends without a word."""

    def __init__(self):
        super().__init__("another rank has ended", "see what it says")


def brief(value: object) -> str:
    """A value as Python writes it, cut after 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def first_line(error: BaseException) -> str:
    """What a library's error says, in one printable line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "".join(filter(str.isprintable, lines[0][:200]))
