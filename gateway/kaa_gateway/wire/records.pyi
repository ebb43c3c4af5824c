"""Avro records from Python values. See records.pyx."""

from collections.abc import Mapping
from typing import Any

class Type:
    def __init__(self, schema: Any) -> None: ...
    def encode(self, value: Mapping[str, Any]) -> bytes: ...
