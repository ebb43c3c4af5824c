"""The links of /.well-known/core, and the filter that a query makes of them.

Source: RFC 6690, the CoRE Link Format; section 4.1 for filters.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LINKS_MAX = 1024
"""Links of a list."""
SELECTIONS_MAX = 16
"""Filtered lists that are remembered, so that the blocks of one are cut from one filtering."""
ETAG_SIZE = 4
"""Bytes."""


class Selection(NamedTuple):
    """A list of links in the link format, and its ETag."""

    body: bytes
    etag: bytes


class _Link(NamedTuple):
    text: bytes
    attributes: dict[bytes, tuple[bytes, ...]]
    """Attribute or `href` -> its values; those of `rt` are separated by spaces in the text."""


class Links:
    """The links of one configuration: one for each extension instance of each application version."""

    def __init__(self, app_versions: Mapping[str, Collection[str]]) -> None:
        names = sorted(
            (version, extension) for version, allowed in app_versions.items() for extension in allowed
        )
        self._links = [_link(version, extension) for version, extension in names[:LINKS_MAX]]
        self._all = _selection(self._links)
        self._selections: OrderedDict[tuple[bytes, ...], Selection] = OrderedDict()

    def select(self, queries: tuple[bytes, ...] = ()) -> Selection:
        """Return the links that match each of these queries; all links if there are none."""
        if not queries:
            return self._all
        found = self._selections.get(queries)
        if found is None:
            if len(self._selections) >= SELECTIONS_MAX:
                self._selections.popitem(last=False)
            found = _selection(
                [link for link in self._links if all(_matches(link, each) for each in queries)]
            )
            self._selections[queries] = found
        return found


def _link(version: str, extension: str) -> _Link:
    target = f"/kp1/{quote(version)}/{quote(extension)}"
    resource_type = f"kaa.{extension}"
    return _Link(
        f'<{target}>;rt="{resource_type}";ct=50'.encode(),
        {b"href": (target.encode(),), b"rt": (resource_type.encode(),), b"ct": (b"50",)},
    )


def _selection(links: list[_Link]) -> Selection:
    body = b",".join(link.text for link in links)
    return Selection(body, hashlib.blake2b(body, digest_size=ETAG_SIZE).digest())


def _matches(link: _Link, query: bytes) -> bool:
    """Return whether a link has a value that is the one in the query, or begins with it if that ends with `*`."""
    name, _, wanted = query.partition(b"=")
    values = link.attributes.get(name, ())
    if wanted.endswith(b"*"):
        return any(value.startswith(wanted[:-1]) for value in values)
    return wanted in values
