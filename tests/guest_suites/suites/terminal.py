"""What this tool says to a person: progress on stderr, and errors that end it without a traceback."""
import sys


class SuiteError(Exception):
    """It cannot go on; the text says what to do."""


def say(text):
    print(f"guest_suites: {text}", file=sys.stderr, flush=True)
