"""What has become of a push, and the words for it."""

from typing import Literal, TypeAlias

import msgspec
from kaa_gateway.bus import push_receipts

Status: TypeAlias = Literal["accepted", "delivered", "sent", "dropped", "repeated", "no-session", "unknown"]

UNKNOWN: Status = "unknown"
"""No gateway has said anything."""

_RANKS: dict[str, int] = {
    push_receipts.NO_SESSION: 1,
    push_receipts.DROPPED: 2,
    push_receipts.REPEATED: 3,
}


class PushOutcome(msgspec.Struct, frozen=True):
    """What has become of a push. The statuses are those of a receipt, and `unknown`.

    `reason` is the gateway's code for `dropped` and `no-session` (docs/reasons.md).
    """

    status: Status
    reason: str | None = None

    @property
    def is_delivered(self) -> bool:
        """Return whether the device has acknowledged the push."""
        return self.status == push_receipts.DELIVERED

    @property
    def is_sent(self) -> bool:
        """Return whether the push has left for a device that was connected."""
        return self.status in (push_receipts.DELIVERED, push_receipts.SENT, push_receipts.REPEATED)

    def is_better_than(self, other: "PushOutcome | None") -> bool:
        """Return whether this says more than another outcome of sessions that did not deliver the push."""
        return other is None or _RANKS.get(self.status, 0) > _RANKS.get(other.status, 0)
