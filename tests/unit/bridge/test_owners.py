"""Which bridge owns an endpoint: two bridges that hear each other late, or not at all."""

from typing import Any

import msgspec
from kaa_gateway.bridge.owners import BRIDGES_MAX, SILENT_MAX, Owners
from kaa_gateway.counters import Counters

KEY = (b"app_v1", b"t1")


class Endpoint:
    """What Owners wants of a session."""

    def __init__(self) -> None:
        self.endpoint_key = KEY
        self.owned = True


class Bus:
    """NATS between bridges, which brings what was sent when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self._handlers: list[Any] = []
        self._sent: list[bytes] = []

    def subscribe(self, _subject: str, handle: Any) -> None:
        self._handlers.append(handle)

    def publish_event(self, _subject: str, datum: bytes) -> None:
        self._sent.append(datum)

    def bring(self) -> None:
        while self._sent:
            datum = self._sent.pop(0)
            for handle in self._handlers:
                handle("subject", datum)


class Member:
    """One bridge, which knows the endpoint after its first message."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.session: Endpoint | None = None
        control: Any = bus
        self.counters = Counters()
        self.owners = Owners(control, "kpc", name, self._find, lambda: bus.now, self.counters)

    def _find(self, _key: object) -> Any:
        return self.session

    def message(self) -> None:
        self.session = self.session or Endpoint()
        session: Any = self.session
        self.owners.use(session)
        self.owners.tell()

    @property
    def owns(self) -> bool:
        return self.session is not None and self.session.owned


def members(count: int) -> tuple[Bus, list[Member]]:
    bus = Bus()
    found = [Member(bus, f"bridge-{number}") for number in range(count)]
    for member in found:
        member.owners.tell(greets=True)
    bus.bring()
    return bus, found


def owners_of(found: list[Member]) -> int:
    return sum(member.owns for member in found)


def test_the_last_one_that_meets_an_endpoint_owns_it() -> None:
    bus, found = members(3)
    for member in found:
        member.message()
        bus.bring()
    assert [member.owns for member in found] == [False, False, True]
    for member in found:
        member.message()
        bus.bring()
    assert [member.owns for member in found] == [False, False, True]


def test_announcements_that_cross_leave_one_owner() -> None:
    bus, found = members(3)
    for member in found:
        member.message()
    bus.bring()
    assert owners_of(found) == 1


def test_one_that_is_silent_or_leaves_owns_nothing() -> None:
    for leaves in (False, True):
        bus, found = members(2)
        for member in found:
            member.message()
            bus.bring()
        first, last = found
        assert (first.owns, last.owns) == (False, True)
        if leaves:
            last.owners.tell(leaves=True)
            bus.bring()
        else:
            first.message()
            assert not first.owns
            bus.now += SILENT_MAX + 1
        first.message()
        assert first.owns


def test_a_slow_clock_owns_nothing_twice() -> None:
    bus, found = members(2)
    first, last = found
    first.message()
    bus.bring()
    first.owners._mine[KEY] += 10**15  # its clock is years ahead
    last.message()
    bus.bring()
    assert (first.owns, last.owns) == (True, False)


def test_what_is_no_announcement_is_ignored() -> None:
    bus, found = members(2)
    found[0].message()
    for datum in (b"", b"\xc1", b"\x93\x01\x02\x03"):
        bus.publish_event("subject", datum)
    bus.bring()
    assert found[0].owns


def test_what_is_heard_of_other_bridges_is_bounded_and_counted() -> None:
    bus = Bus()
    member = Member(bus, "a")
    for number in range(BRIDGES_MAX + 2):
        bus.publish_event("subject", msgspec.msgpack.encode([f"bridge-{number}", []]))
    bus.publish_event("subject", b"garbage")
    bus.bring()
    assert member.counters.by_reason()["dropped", "too_many_workers"] == 2
    assert member.counters.by_reason()["dropped", "session_message_malformed"] == 1
    bus.now += SILENT_MAX
    member.owners.tell(greets=True)
    bus.publish_event("subject", msgspec.msgpack.encode(["bridge-new", []]))
    bus.bring()
    assert member.counters.by_reason()["dropped", "too_many_workers"] == 2
