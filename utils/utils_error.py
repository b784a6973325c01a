"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A user's mistake. The message is one line: what, found, expected, and what to do; the program exits with 2."""
