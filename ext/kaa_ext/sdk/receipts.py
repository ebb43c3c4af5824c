"""The receipts of an extension's pushes: asks for them, and gives each report to the push that it is about.

Source: docs/extensions.md, "Receipts".
"""

from collections import OrderedDict

from kaa_gateway.bus import push_receipts
from nats.aio.msg import Msg

from kaa_ext.sdk.push_outcome import UNKNOWN, PushOutcome
from kaa_ext.sdk.push_receipt import PushReceipt

WAITING_MAX = 65_536
"""Pushes whose outcome is not known; the oldest is given up for a new one."""


class Receipts:
    """The pushes of one replica whose outcome is awaited."""

    def __init__(self, replica_id: str) -> None:
        self.subject = push_receipts.receipt_subject(replica_id)
        self.headers = {push_receipts.RECEIPT_HEADER: self.subject}
        self._waiting: OrderedDict[PushReceipt, None] = OrderedDict()
        self._by_push: dict[str, list[PushReceipt]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, push_id: str, *, one_worker: bool) -> PushReceipt:
        """Return the receipt of a push that is about to be sent. A repeated push has one of its own."""
        while len(self._waiting) >= WAITING_MAX:
            oldest = next(iter(self._waiting))
            oldest.end(PushOutcome(UNKNOWN))
            self._forget(oldest)
        receipt = PushReceipt(push_id, one_worker=one_worker)
        self._waiting[receipt] = None
        self._by_push.setdefault(push_id, []).append(receipt)
        receipt.when_over(self._forget)
        return receipt

    def receive(self, message: Msg) -> None:
        """Take the report of a worker."""
        fields = push_receipts.PUSH_RECEIPT.decode(message.data)
        outcome = PushOutcome(fields["outcome"], fields["reason"])
        for receipt in list(self._by_push.get(fields["correlationId"], ())):
            receipt.receive(fields["gatewayReplicaId"], fields["session"], outcome)

    def _forget(self, receipt: PushReceipt) -> None:
        if receipt in self._waiting:
            del self._waiting[receipt]
            same = self._by_push[receipt.push_id]
            same.remove(receipt)
            if not same:
                del self._by_push[receipt.push_id]
