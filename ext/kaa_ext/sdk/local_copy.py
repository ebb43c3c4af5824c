"""The entries of a bucket in the memory of this process, bounded in number and in bytes.

Who keeps the copy up to date is in watched_bucket.py.
"""

from collections import OrderedDict
from typing import Any

import msgspec

ENTRIES_MAX = 100_000
"""Keys of one bucket that are held in memory."""
BYTES_MAX = 64 * 1024 * 1024
"""Bytes of keys and values of one bucket that are held in memory."""
ENTRY_OVERHEAD = 256
"""Bytes that a key costs beside its text and its value."""


class Entry(msgspec.Struct):
    """A value and its revision. The value is empty if the key is deleted or, with revision 0, was never there.

    `decoded` holds what `State` has decoded the value to; None before that.
    """

    value: bytes
    revision: int
    decoded: Any = None


class LocalCopy:
    """Entries by key. The least recently used are removed first, and then the copy is not complete any more.

    In a complete copy, a key that is missing does not exist.
    """

    def __init__(self, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.size = 0
        self.complete = True
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._entries_max = entries_max
        self._bytes_max = bytes_max

    def __len__(self) -> int:
        return len(self._entries)

    def has_room(self, entries: int) -> bool:
        """Return whether so many entries can be held."""
        return entries <= self._entries_max

    def get(self, key: str) -> Entry | None:
        """Return the entry of a key, or None if the copy does not have it."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Store an entry unless the copy has a newer one. Remove the least recently used ones beyond the bounds."""
        entries = self._entries
        before = entries.get(key)
        if before is not None:
            if before.revision >= entry.revision:
                return
            self.size -= _size(key, before)
        entries[key] = entry
        entries.move_to_end(key)
        self.size += _size(key, entry)
        while len(entries) > self._entries_max or self.size > self._bytes_max:
            removed, old = entries.popitem(last=False)
            self.size -= _size(removed, old)
            self.complete = False

    def forget(self, key: str, revision: int) -> None:
        """Remove a key that has this revision: the bucket has nothing of it any more."""
        entry = self._entries.get(key)
        if entry is not None and entry.revision <= revision:
            del self._entries[key]
            self.size -= _size(key, entry)


def _size(key: str, entry: Entry) -> int:
    return len(key) + len(entry.value) + ENTRY_OVERHEAD
