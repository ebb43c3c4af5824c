"""Commands and their results as JetStream holds them.

State `outstanding`: key (endpoint ID). State `results`, for a limited time: key (endpoint ID, command type, command
ID). Times are UNIX times in milliseconds.
"""

import msgspec
from kaa_gateway.bus import push_receipts
from msgspec import UNSET, UnsetType

OUTSTANDING = "outstanding"
RESULTS = "results"
"""The names of the states."""

ALL_TYPES = ""
"""The command type that stands for all of them, in a request without type."""
EXPIRED = 408
"""The status code of a command whose time is over."""


_WORDS = {
    push_receipts.ACCEPTED: "not delivered yet: the endpoint has not acknowledged it",
    push_receipts.DELIVERED: "delivered",
    push_receipts.SENT: "sent without acknowledgement",
    push_receipts.REPEATED: "sent before",
    push_receipts.NO_SESSION: "not delivered because the endpoint is not connected",
}


class Fetched(msgspec.Struct, rename="camel"):
    """The request by which an endpoint got a command: its time, and the gateway replica that sent it."""

    timestamp: int
    gateway_replica_id: str | None


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the gateway says of the last push of a command: the fields of a PushOutcome, and its time."""

    status: str
    at: int
    reason: str | None = None

    @property
    def is_delivered(self) -> bool:
        """Return whether the endpoint has acknowledged the command."""
        return self.status == push_receipts.DELIVERED

    def __str__(self) -> str:
        """Say it in words."""
        if self.status == push_receipts.DROPPED:
            return f"not delivered because of {self.reason}"
        return _WORDS.get(self.status, self.status)


class Command(msgspec.Struct, rename="camel", omit_defaults=True):
    """An outstanding command. `correlation_id` and `reply_to` are for the answer to its caller."""

    type: str
    id: int
    deadline: int
    push_id: str
    correlation_id: str
    reply_to: str = ""
    payload: msgspec.Raw | UnsetType = UNSET
    fetched: Fetched | None = None
    delivery: Delivery | None = None

    @property
    def delivery_in_words(self) -> str:
        """Say whether the endpoint has the command; empty if that is not known yet."""
        if self.fetched is not None:
            return "fetched by the endpoint"
        return "" if self.delivery is None else str(self.delivery)

    def is_same(self, other: "Command") -> bool:
        """Return whether two commands of an endpoint have one type and ID, and so are one command."""
        return (self.type, self.id) == (other.type, other.id)


class Outstanding(msgspec.Struct, omit_defaults=True):
    """The outstanding commands of an endpoint, and the command types that it said it does or does not observe."""

    commands: list[Command] = []
    observe: dict[str, bool] = {}

    def is_observed(self, kind: str) -> bool:
        """Return whether commands of this type are pushed. What was said of the type counts before all types."""
        return self.observe.get(kind, self.observe.get(ALL_TYPES, True))

    def is_news(self, kind: str, observe: bool) -> bool:
        """Return whether it must be stored that the endpoint says this of a type, or of ALL_TYPES."""
        if kind == ALL_TYPES or ALL_TYPES in self.observe:
            return observe != self.observe.get(kind)
        return observe != self.is_observed(kind)

    def is_pushed_with_type(self, kind: str) -> bool:
        """Return whether commands of this type are pushed to the resource of all types: only that is observed."""
        return kind not in self.observe and self.observe.get(ALL_TYPES, False)


class Result(msgspec.Struct, rename="camel", omit_defaults=True):
    """The result of a command."""

    status_code: int
    completed_at: int
    app_version_name: str = ""
    reason_phrase: str | None = None
    payload: msgspec.Raw | UnsetType = UNSET

    @property
    def is_of_expiry(self) -> bool:
        """Return whether cex made this result because the time was over, not the endpoint."""
        return self.status_code == EXPIRED and not self.app_version_name
