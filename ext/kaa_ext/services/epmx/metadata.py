"""The metadata of an endpoint, its limits, and a change of it.

Source: 10/EPMP "Endpoint Metadata Protocol", metadata keys.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec

from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError

KEYS_MAX = 1000
"""Metadata keys of one endpoint."""
SIZE_MAX = 512 * 1024
"""Bytes of the metadata of one endpoint."""
KEY = re.compile(r"[a-zA-Z0-9_]+")

Metadata: TypeAlias = dict[str, msgspec.Raw]
"""JSON values by key."""


class Change:
    """A change of the metadata of an endpoint, and what it found and left."""

    __slots__ = ("_change", "after", "before")

    def __init__(self, change: Callable[[Metadata], Metadata]) -> None:
        self._change = change
        self.before: Metadata = {}
        self.after: Metadata = {}

    def __call__(self, metadata: Metadata | None) -> Metadata | None:
        """Return the metadata after the change. Raise ExtensionError 413 if they are too many or too large."""
        before = metadata or {}
        after = self._change(before)
        if len(after) > KEYS_MAX or _size(after) > SIZE_MAX:
            raise ExtensionError(
                413,
                f"An endpoint has at most {KEYS_MAX} metadata keys and {SIZE_MAX // 1024} KiB of metadata",
            )
        self.before, self.after = before, after
        return after or None


def checked_keys(keys: Iterable[str]) -> list[str]:
    """Return the keys as a list. Raise ExtensionError 400 unless they are distinct and as 10/EPMP requires."""
    seen: dict[str, None] = {}
    for key in keys:
        if not KEY.fullmatch(key):
            raise ExtensionError(400, "A metadata key has letters, digits and underscores, and at least one")
        if key in seen:
            raise ExtensionError(400, f"Key {key} is there twice")
        seen[key] = None
    return list(seen)


def compacted(value: msgspec.Raw) -> msgspec.Raw:
    """Return a JSON value without white space."""
    text = bytes(value)
    # Only objects and arrays have white space that means nothing.
    return msgspec.Raw(payloads.compact(text) if text.startswith((b"{", b"[")) else text)


def texts(metadata: Metadata) -> dict[str, bytes]:
    """Return the JSON text of each value."""
    return {key: bytes(value) for key, value in metadata.items()}


def version_of(metadata: Metadata) -> str:
    """Return the entity tag of metadata: a digest, whatever the order of the keys."""
    digest = hashlib.blake2b(digest_size=16)
    for key, value in sorted(texts(metadata).items()):
        for part in (key.encode(), value):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _size(metadata: Metadata) -> int:
    return sum([len(key) + len(bytes(value)) for key, value in metadata.items()])
