"""Which of several bridges delivers the pushes of an endpoint.

A shared subscription spreads the messages of one device over all bridges, so several of them know its endpoint, and
each gets its pushes from NATS. A bridge that meets an endpoint for the first time announces that it owns it, with a
stamp; the highest stamp wins, and the others leave its pushes to that bridge. Bridges greet each other. One that is
silent for long owns nothing any more: the next message of a device is announced by whoever gets it. So a push may come
twice while owners change. Between the end of an owner and the next message of the device, its pushes are lost.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from kaa_gateway.bus import subjects
from kaa_gateway.errors import UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from kaa_gateway.bridge.session import BridgedEndpoint, EndpointKey
    from kaa_gateway.bus.control import Control
    from kaa_gateway.counters import Counters

GREETING_PERIOD = 2.0
"""Seconds between greetings."""
SILENT_MAX = 7.0
"""Seconds without a greeting after which a bridge owns nothing."""
BRIDGES_MAX = 1_000
"""Other bridges that are remembered."""


class Announcement(msgspec.Struct, array_like=True):
    """What a bridge tells the others: that it is there, and which endpoints it owns, each with its stamp."""

    replica: str
    endpoints: list[tuple[str, str, int]]
    leaves: bool = False


class Owners:
    """Who owns the endpoints of this bridge's sessions. `now` is the clock of the event loop."""

    def __init__(
        self,
        control: Control,
        instance: str,
        replica: str,
        find: Callable[[EndpointKey], BridgedEndpoint | None],
        now: Callable[[], float],
        counters: Counters,
    ) -> None:
        self._control = control
        self._counters = counters
        self._subject = subjects.service(instance, "bridge", "Owner")
        self._replica = replica
        self._find = find
        self._now = now
        self._heard: dict[str, float] = {}
        self._mine: dict[EndpointKey, int] = {}
        """Stamps of the endpoints that are owned here."""
        self._others: dict[EndpointKey, str] = {}
        """The owners of the other endpoints."""
        self._highest = 0
        self._unsaid: dict[EndpointKey, int] = {}
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Announcement)
        control.subscribe(self._subject, self._on_announcement)

    def use(self, session: BridgedEndpoint) -> None:
        """Note a message of a session. It owns its endpoint unless another bridge does that is alive."""
        key = session.endpoint_key
        if key is None or key in self._mine:
            return
        owner = self._others.get(key)
        if owner is not None and self._is_alive(owner):
            return
        self._others.pop(key, None)
        self._highest = max(time.time_ns() // 1000, self._highest + 1)
        self._mine[key] = self._unsaid[key] = self._highest
        session.owned = True

    def forget(self, key: EndpointKey) -> None:
        """Forget who owns an endpoint: its session has ended."""
        for table in (self._mine, self._others, self._unsaid):
            table.pop(key, None)

    def tell(self, *, greets: bool = False, leaves: bool = False) -> None:
        """Announce what is new; with `greets` or `leaves`, even if there is nothing."""
        if greets:
            # Bridges that died have said no goodbye.
            self._heard = {
                replica: heard for replica, heard in self._heard.items() if self._is_alive(replica)
            }
        unsaid, self._unsaid = self._unsaid, {}
        if unsaid or greets or leaves:
            endpoints = [
                (version.decode(), token.decode("utf-8", "replace"), stamp)
                for (version, token), stamp in unsaid.items()
            ]
            announcement = Announcement(self._replica, endpoints, leaves)
            self._control.publish_event(self._subject, self._encoder.encode(announcement))

    def _is_alive(self, replica: str) -> bool:
        heard = self._heard.get(replica)
        return heard is not None and self._now() - heard < SILENT_MAX

    def _on_announcement(self, _subject: str, datum: bytes) -> None:
        try:
            announcement = self._decoder.decode(datum)
        except UNDECODABLE:
            self._counters.add("dropped", "session_message_malformed")
            return
        replica = announcement.replica
        if replica == self._replica:
            return
        if announcement.leaves:
            self._heard.pop(replica, None)
            return
        if replica not in self._heard and len(self._heard) >= BRIDGES_MAX:
            self._counters.add("dropped", "too_many_workers")
            return
        self._heard[replica] = self._now()
        for version, token, stamp in announcement.endpoints:
            self._yield_to(replica, (version.encode(), token.encode()), stamp)
        self.tell()

    def _yield_to(self, replica: str, key: EndpointKey, stamp: int) -> None:
        """Leave an endpoint to a bridge with a higher stamp; say again what is owned here with a higher one."""
        self._highest = max(self._highest, stamp)
        session = self._find(key)
        if session is None:
            return
        mine = self._mine.get(key)
        if mine is not None and (mine, self._replica) > (stamp, replica):
            self._unsaid[key] = mine
            return
        self._mine.pop(key, None)
        self._unsaid.pop(key, None)
        self._others[key] = replica
        session.owned = False
