"""Long work (kaa_gateway.slices), done at once."""

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


def finished(steps: Generator[int, None, Result]) -> Result:
    """Take all steps of some work; its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
