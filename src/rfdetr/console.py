"""The lines a user sees."""

import sys


def say(message: str) -> None:
    """One line of progress or result, on standard output at once."""
    print(message, flush=True)


def warn(message: str) -> None:
    """Something the user should know and that does not stop the run, on standard error."""
    print(f"rfdetr: warning: {message}", file=sys.stderr, flush=True)
