"""The copy of a bucket in memory: its bounds, and which of two entries it keeps."""

from kaa_ext.sdk.local_copy import ENTRY_OVERHEAD, Entry, LocalCopy


def test_the_newest_entry_of_a_key_is_kept() -> None:
    copy = LocalCopy()
    for revision in (2, 3, 1):
        copy.put("k", Entry(b"%d" % revision, revision))
    assert copy.get("k") == Entry(b"3", 3)
    assert copy.get("other") is None
    assert (len(copy), copy.complete) == (1, True)


def test_the_least_recently_used_entry_is_removed_first() -> None:
    copy = LocalCopy(entries_max=3)
    for revision, key in enumerate("abc", 1):
        copy.put(key, Entry(b"", revision))
    copy.get("a")
    assert copy.complete
    copy.put("d", Entry(b"", 4))
    assert [key for key in "abcd" if copy.get(key)] == ["a", "c", "d"]
    assert not copy.complete


def test_the_bytes_are_bounded_at_any_number_of_entries() -> None:
    copy = LocalCopy(bytes_max=10 * (ENTRY_OVERHEAD + 101))
    for revision in range(1, 100):
        copy.put(chr(revision), Entry(bytes(100), revision))
    assert len(copy) == 10
    for revision in range(100, 200):
        copy.put(chr(99), Entry(bytes(revision), revision))
        assert copy.size <= 10 * (ENTRY_OVERHEAD + 101)
    copy.put("large", Entry(bytes(1 << 20), 200))
    assert (len(copy), copy.size) == (0, 0)


def test_a_key_is_forgotten_unless_it_has_a_newer_value() -> None:
    copy = LocalCopy()
    copy.put("k", Entry(b"", 5))
    copy.forget("k", 4)
    assert len(copy) == 1
    copy.forget("k", 5)
    assert (len(copy), copy.size, copy.complete) == (0, 0, True)
