"""What the benchmark says to a person: progress on stderr, and errors that end it without a traceback."""
import sys


class BenchError(Exception):
    """The benchmark cannot go on; the text says what to do."""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)
