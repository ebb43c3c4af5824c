"""The receipt of one push: gathers the reports of all workers of the gateway until the outcome is certain."""

import asyncio
from collections.abc import Callable

from kaa_gateway.bus import push_receipts

from kaa_ext.sdk.push_outcome import UNKNOWN, PushOutcome

OTHERS_S = 1.0
"""How long other workers may take for their reports. Only one of them may know the endpoint."""


class PushReceipt:
    """What `push(..., receipt=True)` returns."""

    def __init__(self, push_id: str, *, one_worker: bool) -> None:
        self.push_id = push_id
        self._one_worker = one_worker
        self._outcome: asyncio.Future[PushOutcome] = asyncio.get_running_loop().create_future()
        self._holders: set[tuple[str, str]] = set()
        """The sessions that have accepted the push and have not said more."""
        self._refusal: PushOutcome | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def outcome(self, timeout_s: float = 30.0) -> PushOutcome:
        """Wait for the outcome. After `timeout_s` it is `accepted` if a session still has the push, else `unknown`."""
        await asyncio.wait({self._outcome}, timeout=timeout_s)
        if self._outcome.done():
            return self._outcome.result()
        return PushOutcome(push_receipts.ACCEPTED if self._holders else UNKNOWN)

    @property
    def is_over(self) -> bool:
        """Return whether the outcome is known."""
        return self._outcome.done()

    def when_over(self, function: Callable[["PushReceipt"], None]) -> None:
        """Call a function with this receipt when the outcome is known."""
        self._outcome.add_done_callback(lambda _: function(self))

    def receive(self, replica_id: str, session: str | None, outcome: PushOutcome) -> None:
        """Take the report of a worker about one of its sessions, or about itself."""
        if self.is_over:
            return
        holder = (replica_id, session or "")
        if outcome.status == push_receipts.ACCEPTED:
            self._holders.add(holder)
        elif outcome.status in (push_receipts.DELIVERED, push_receipts.SENT):
            self.end(outcome)
        else:
            self._holders.discard(holder)
            if outcome.is_better_than(self._refusal):
                self._refusal = outcome
            if self._one_worker:
                self._end_refused()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(OTHERS_S, self._end_refused)

    def end(self, outcome: PushOutcome) -> None:
        """Set the outcome, unless it is known."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)
        if self._timer is not None:
            self._timer.cancel()

    def _end_refused(self) -> None:
        self._timer = None
        if not self._holders and self._refusal is not None:
            self.end(self._refusal)
