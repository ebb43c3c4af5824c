"""Problems of a configuration, as an operator is told of them."""

from typing import Literal, NamedTuple, TypeAlias

from kaa_gateway.yaml_tree import one_line

Severity: TypeAlias = Literal["error", "warning"]


class Problem(NamedTuple):
    """Something wrong in the configuration; `str()` of it is one line for the operator, without secrets."""

    path: str
    """Full path of the key, or empty if the problem is none of one key."""
    line: int | None
    message: str
    severity: Severity
    source: str
    """The file or the environment variable where it is wrong; empty for a default."""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        # A variable names its key itself.
        path = self.path if self.line or not self.source else ""
        return one_line(place, path, self.message)
