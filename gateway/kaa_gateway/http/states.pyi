"""The states of an HTTP connection. See states.pyx."""

from collections.abc import Mapping

TRANSITIONS: Mapping[str, frozenset[str]]
"""Which state may follow which."""
