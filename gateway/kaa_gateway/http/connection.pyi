"""The server's side of one HTTP connection. See connection.pyx."""

from collections.abc import Mapping

TRANSITIONS: Mapping[str, frozenset[str]]
