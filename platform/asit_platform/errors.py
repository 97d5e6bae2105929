"""The platform's one error: what a user can mend, in one line each.

`cli.py` prints it without a traceback and exits with 2; everything else that
escapes a command is a bug and keeps its traceback.
"""


class PlatformError(Exception):
    """Something a user can mend: what, where, the rule, the value and the remedy.

    The message is one line, or one line per fault where several were found at once.
    """
