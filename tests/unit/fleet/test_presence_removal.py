"""Replicas that remove each other's presence while NATS servers come and go: what a living one has written remains."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from kaa_gateway.bus import presence_bucket
from kaa_gateway.bus.presence_bucket import Lease
from kaa_gateway.fleet.presence import PresenceWriter

LEASE_S = 1.0
PREFIX = f"$KV.{presence_bucket.bucket_of('kpc')}."
LEASE = PREFIX + presence_bucket.lease_key("two")
ENTRY = PREFIX + presence_bucket.entry_key("device", "two")


class BucketDouble:
    """A control connection, and the bucket behind it. What others write is not heard of."""

    connected = True
    jetstream_domain = None

    def __init__(self) -> None:
        self.values: dict[str, tuple[int, bytes]] = {}
        """Sequence and datum by subject."""
        self.last = 0
        self.before_purge: Callable[[], None] = lambda: None
        """What happens before entries of the other replica are removed."""

    def subscribe(self, subject: str, handle: Callable[[str, bytes], None]) -> None: ...

    def when_reconnected(self, callback: Callable[[], None]) -> None: ...

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None:
        self.write(subject, payload)

    async def request(
        self, subject: str, payload: bytes, timeout: float, headers: dict[str, str] | None = None
    ) -> bytes:
        await asyncio.sleep(0)
        body = json.loads(payload) if subject.startswith("$JS.API.") else {}
        if ".STREAM.INFO." in subject:
            leases = dict.fromkeys((each for each in self.values if ".replica." in each), 1)
            return json.dumps({"state": {"last_seq": self.last, "subjects": leases}}).encode()
        if ".STREAM.MSG.GET." in subject:
            return self._get(body["last_by_subj"])
        if ".STREAM.PURGE." in subject:
            if body["filter"].endswith(".two"):
                self.before_purge()
            self._purge(body)
            return b"{}"
        self.write(subject, payload)
        return b"{}"

    def write(self, subject: str, datum: bytes) -> None:
        """Set a key."""
        self.last += 1
        self.values[subject] = (self.last, datum)

    def _get(self, subject: str) -> bytes:
        if subject not in self.values:
            return b'{"error": {"err_code": 10037}}'
        sequence, datum = self.values[subject]
        return json.dumps({"message": {"seq": sequence, "data": base64.b64encode(datum).decode()}}).encode()

    def _purge(self, body: dict[str, Any]) -> None:
        before, _, after = body["filter"].partition("*")
        for subject, (sequence, _) in list(self.values.items()):
            if (
                subject.startswith(before)
                and subject.endswith(after)
                and sequence < body.get("seq", self.last + 1)
            ):
                del self.values[subject]


@pytest.fixture
async def bucket() -> AsyncIterator[BucketDouble]:
    """A bucket with another replica in it, and a running writer of this one."""
    double = BucketDouble()
    control: Any = double
    writer = PresenceWriter(
        control, "kpc", "one", lease=LEASE_S, copies=1, look=lambda endpoint: None, everyone=list
    )
    come_back(double)
    writer.start()
    yield double
    await writer.stop()


def come_back(bucket: BucketDouble) -> None:
    """Renew the lease of the other replica, and write its entry."""
    bucket.write(LEASE, presence_bucket.encode(Lease(life="1", seconds=LEASE_S)))
    bucket.write(ENTRY, b"{}")


async def test_a_replica_that_renews_its_lease_unheard_keeps_its_entries(bucket: BucketDouble) -> None:
    entry = bucket.values[ENTRY]
    for _ in range(70):
        bucket.write(LEASE, presence_bucket.encode(Lease(life="1", seconds=LEASE_S)))
        await asyncio.sleep(LEASE_S / 20)
    assert bucket.values[ENTRY] == entry


async def test_a_replica_that_dies_loses_its_entries(bucket: BucketDouble) -> None:
    while ENTRY in bucket.values:
        await asyncio.sleep(0.05)
    while LEASE in bucket.values:
        await asyncio.sleep(0.05)


async def test_a_replica_that_comes_back_while_it_is_removed_keeps_what_it_writes(
    bucket: BucketDouble,
) -> None:
    returns: list[int] = []

    def come_back_once() -> None:
        if not returns:
            returns.append(bucket.last)
            come_back(bucket)

    await asyncio.sleep(0)
    bucket.before_purge = come_back_once
    while not returns:
        await asyncio.sleep(0.05)
    await asyncio.sleep(LEASE_S / 2)
    assert ENTRY in bucket.values
    assert LEASE in bucket.values
