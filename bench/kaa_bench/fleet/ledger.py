"""Which messages of which clients there are, in little memory: millions of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_bench.fleet.names import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterable


class Ledger:
    """A set of messages, each the numbers of its client and of itself."""

    def __init__(self) -> None:
        self._clients: dict[int, int] = {}
        """The messages of each client: bit n stands for message n."""

    def add(self, client: int, number: int) -> bool:
        """Add a message. Return False if it is there already."""
        before = self._clients.get(client, 0)
        self._clients[client] = before | 1 << number
        return not before >> number & 1

    def read(self, data: bytes) -> None:
        """Add the messages of whole RECORDs; an incomplete one at the end is ignored."""
        for client, number in RECORD.iter_unpack(data[: len(data) - len(data) % RECORD.size]):
            self.add(client, number)

    def __len__(self) -> int:
        return sum(numbers.bit_count() for numbers in self._clients.values())

    def without(self, other: Ledger) -> int:
        """Return how many messages are here and not there."""
        return sum(
            (numbers & ~other._clients.get(client, 0)).bit_count()
            for client, numbers in self._clients.items()
        )


def records(messages: Iterable[tuple[int, int]]) -> bytes:
    """Return messages as RECORDs."""
    return b"".join(RECORD.pack(client, number) for client, number in messages)
