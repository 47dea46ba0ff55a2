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
