"""The error of the bench."""


class BenchError(Exception):
    """A server did not start, an instrument failed, or a run stalled. The message is for the terminal."""
