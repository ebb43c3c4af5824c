"""Any bytes as topics and payloads of a broker, and what happens around them, with the session of a bridged endpoint.

An input is a sequence of steps. A byte below 0x80 is a message: it says how many bytes (less one) follow, of which
those before the first line feed are the topic, and the rest is the payload; one from 0xC0 on says it in units of 32.
Those between are events, `EVENTS`. At the end, each message of QoS 1 that was taken is confirmed once.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from kaa_gateway.bridge.session import BridgedEndpoint, endpoint_key_of
from kaa_gateway.bridge.topics import TopicMapping, apply_first
from kaa_gateway.bus import subjects
from kaa_gateway.wire import esp

from tests.fuzz.simulation import EVENT, LONG, UNIT
from tests.unit.kp.worker_double import Published, WorkerDouble

(IDENTIFY, CONFIRM, ANSWER, ERROR, PUSH, NOBODY, BROKER_FULL, NATS_LOST, ANOTHER_OWNER) = range(9)
MAPPINGS = [
    TopicMapping.of("up", "plant/{device}/telemetry/#", "kp1/app_v1/dcx/{device}/#"),
    TopicMapping.of("up", "{a}/{b}", "kp1/app_v1/{b}/{a}/x"),
]
PENDING_MAX = 4096


class BridgeSimulation(WorkerDouble):
    """A worker whose devices are on a broker; it is the bridge of its sessions, and used again and again."""

    def __init__(self) -> None:
        super().__init__(pending_max=PENDING_MAX, route_cache=4)
        self._by_key: dict[Any, BridgedEndpoint] = {}
        self._references = 0
        self._taken: set[int] = set()
        self._confirmed: Counter[int] = Counter()
        self._full = False
        self._latest: Published | None = None

    # ------------------------------------------------------------ the bridge, as its sessions see it

    def confirmed(self, reference: int) -> None:
        self._confirmed[reference] += 1

    def resumed(self) -> None:
        """The uplink has room."""

    def ended(self, session: BridgedEndpoint) -> None:
        del self._by_key[session.endpoint_key]

    def send(self, topic: bytes, payload: bytes) -> bool:
        assert topic.endswith((b"/status", b"/error"))
        apply_first(MAPPINGS, topic.decode("utf-8", "replace"))
        return not self._full

    # ------------------------------------------------------------ playing

    def play(self, data: bytes) -> None:
        """Play an input; AssertionError if a message is confirmed twice, or not at all."""
        at = 0
        while at < len(data):
            step = data[at]
            at += 1
            if EVENT <= step < LONG:
                EVENTS[(step - EVENT) % len(EVENTS)](self)
            else:
                size = step + 1 if step < EVENT else (step - LONG + 1) * UNIT
                self._take(data[at : at + size])
                at += size
            self._settle()
        self._end()

    def _take(self, message: bytes) -> None:
        topic, _, payload = message.partition(b"\n")
        text = topic.decode("utf-8", "replace")
        mapped = text if text.startswith("kp1/") else apply_first(MAPPINGS, text)
        if mapped is None:
            return
        data = mapped.encode()
        key = endpoint_key_of(self.router, data)
        session = self._by_key.get(key)
        if session is None:
            session = BridgedEndpoint(self.uplink, self.sessions, self.counters, "bridge", self, key)
            self._by_key[key] = session
        self._references += 1
        reference = self._references if len(payload) % 4 else None
        if session.publish(data, payload, 0, reference) and reference is not None:
            self._taken.add(reference)

    def _settle(self) -> None:
        self.loop.run()
        for published in self.published():
            self._latest = published
        if not self.link.ready:
            self.connect_nats()

    def _reply(self, status: int) -> None:
        if self._latest is not None:
            asked = self._latest.data
            datum = esp.ExtensionData(
                asked.correlation_id, 0, 0, asked.app_version_name, "dcx", asked.endpoint_id, asked.resource_path,
                asked.request_id, b"answer", status, None,
            )  # fmt: skip
            self.deliver(esp.encode_extension_data(*datum))

    def _push(self) -> None:
        datum = esp.encode_extension_data("", 0, 0, None, "dcx", "endpoint-t", "/push", None, b"x", 200, None)
        self.deliver(datum)

    def _change_owner(self) -> None:
        for session in self._by_key.values():
            session.owned = not session.owned

    def _lose_nats(self) -> None:
        self.link.abort()
        self.loop.run()
        self.connect_nats()

    def _end(self) -> None:
        for _ in range(3):
            self.identify()
            self._settle()
            self.confirm()
        assert set(self._confirmed) >= self._taken
        assert all(count == 1 for count in self._confirmed.values())
        for session in [*self._by_key.values()]:
            session.close()
        self._by_key.clear()
        self._taken.clear()
        self._confirmed.clear()
        self._full = False
        self._latest = None
        self.losses.clear()
        self._settle()
        assert self.sessions.count == 0
        assert self.link.backlog == 0


def _nobody(simulation: BridgeSimulation) -> None:
    simulation.no_responders(subjects.service("dcx", "esp", subjects.CLIENT_DATA))


def _fill(simulation: BridgeSimulation) -> None:
    simulation._full = not simulation._full


EVENTS: Sequence[Callable[[BridgeSimulation], object]] = [
    BridgeSimulation.identify,
    BridgeSimulation.confirm,
    lambda simulation: simulation._reply(200),
    lambda simulation: simulation._reply(500),
    BridgeSimulation._push,
    _nobody,
    _fill,
    BridgeSimulation._lose_nats,
    BridgeSimulation._change_owner,
]
"""What a step from EVENT on makes happen."""
