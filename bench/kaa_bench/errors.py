"""The one error of the bench."""


class BenchError(Exception):
    """A server did not start, an instrument failed, or a run stalled; the message is for the terminal."""
