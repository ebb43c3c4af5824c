"""The sums over histories, for the table of a soak."""

from dataclasses import dataclass, fields

from kaa_bench.soak.checker import Disturbances, Promises, lost
from kaa_bench.soak.history import History


@dataclass
class Account:
    """How many messages had which outcome."""

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    delivered: int = 0
    duplicated: int = 0
    answered: int = 0
    lost: int = 0
    """Messages that were acknowledged and not delivered, without an excuse."""
    lost_with_nats: int = 0
    """Messages that were acknowledged and not delivered when the NATS server was killed."""

    def add(self, other: "Account") -> None:
        """Add the sums of another."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def account(
    history: History, promises: Promises, disturbances: Disturbances, place: int = 0, places: int = 1
) -> Account:
    """Return the sums; with `places`, of the messages whose number leaves the remainder `place`."""
    sums = Account()
    for message in history.messages:
        if message.number % places != place:
            continue
        sums.sent += 1
        sums.refused += message.refused is not None
        sums.acknowledged += message.acknowledged is not None and message.refused is None
        sums.delivered += bool(message.deliveries)
        sums.duplicated += max(len(message.deliveries) - 1, 0)
        sums.answered += bool(message.answers)
        is_lost = lost(message, promises, disturbances)
        sums.lost += is_lost is True
        sums.lost_with_nats += is_lost is None
    return sums
