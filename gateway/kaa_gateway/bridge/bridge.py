"""The bridge of one worker: it takes messages from a broker, and brings answers and pushes back to it.

A message of QoS 1 is acknowledged to the broker when NATS has it, in the order in which messages came. While NATS does
not take messages, the broker keeps them: no more than Receive Maximum are here. While the broker is away, answers and
pushes wait here, bounded.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

import aiomqtt
import structlog

from kaa_gateway.bridge.owners import GREETING_PERIOD
from kaa_gateway.bridge.session import BridgedEndpoint, endpoint_key_of
from kaa_gateway.bridge.topics import TopicMapping, apply_first
from kaa_gateway.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kaa_gateway.bridge.broker import BrokerClient
    from kaa_gateway.bridge.owners import Owners
    from kaa_gateway.bridge.session import EndpointKey
    from kaa_gateway.counters import Counters
    from kaa_gateway.kp.router import Router
    from kaa_gateway.kp.sessions import Sessions
    from kaa_gateway.kp.uplink import Uplink

log = structlog.get_logger("gateway.bridge")

PROTOCOL = "bridge"
"""Its name in metrics."""
OWN_ENDINGS = ("/status", "/error")
"""What the topics of answers and pushes end in. The bridge gets them back from the broker, and does not take them."""
RECONNECT_FIRST, RECONNECT_MAX = 0.5, 30.0
"""Seconds between attempts to connect."""
PUBLISHING_MAX = 100
"""Publications to the broker that are not acknowledged."""
STOP_POLL = 0.02
REFUSED = 0x80
"""The first reason code of SUBACK that refuses."""


class Bridge:
    """Devices on another broker. `connect` makes a client of the broker; `owners` may be set once."""

    def __init__(
        self,
        uplink: Uplink,
        sessions: Sessions,
        router: Router,
        counters: Counters,
        connect: Callable[[], BrokerClient],
        *,
        topic_filters: Sequence[str],
        up: Sequence[TopicMapping],
        down: Sequence[TopicMapping],
        endpoints_max: int,
        queued_max: int,
        queued_bytes_max: int,
    ) -> None:
        self._uplink = uplink
        self._sessions = sessions
        self._router = router
        self._counters = counters
        self._connect = connect
        self._topic_filters = topic_filters
        self._up = up
        self._down = down
        self._endpoints_max = endpoints_max
        self._queued_max = queued_max
        self._queued_bytes_max = queued_bytes_max
        self._owners: Owners | None = None
        self._by_key: OrderedDict[EndpointKey | None, BridgedEndpoint] = OrderedDict()
        self._client: BrokerClient | None = None
        self._connection = 0
        """Counts connections: acknowledgements of an earlier one are of no use."""
        self._unacknowledged: deque[list[Any]] = deque()
        """[packet identifier, whether NATS has the message] in the order of arrival."""
        self._room = asyncio.Event()
        self._queued: deque[tuple[str, bytes]] = deque()
        self._queued_bytes = 0
        """Of the payloads in `_queued` and `_publishing`."""
        self._has_queued = asyncio.Event()
        self._publishing: dict[int, tuple[str, bytes]] = {}
        self._published = 0
        self._may_publish = asyncio.Semaphore(PUBLISHING_MAX)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.connections = 0
        """How often it has connected."""

    def set_owners(self, owners: Owners) -> None:
        """Share endpoints with other bridges; once, before the start."""
        self._owners = owners

    def find(self, key: EndpointKey) -> BridgedEndpoint | None:
        """Return the session of an endpoint."""
        return self._by_key.get(key)

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there."""
        return self._client is not None

    def queued(self) -> int:
        """Return how many answers and pushes the broker has not acknowledged."""
        return len(self._queued) + len(self._publishing)

    def queued_bytes(self) -> int:
        """Return the bytes of their payloads."""
        return self._queued_bytes

    def unacknowledged(self) -> int:
        """Return how many messages of the broker are not acknowledged."""
        return len(self._unacknowledged)

    def endpoint_count(self) -> int:
        """Return how many endpoints are known."""
        return len(self._by_key)

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Connect, and stay connected."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run())]
        if self._owners is not None:
            self._tasks.append(loop.create_task(self._greet(self._owners)))

    async def stop(self, deadline: float) -> None:
        """Take no more messages; acknowledge what NATS has until `deadline`, a loop time; and leave the broker."""
        self._stopping = True
        client = self._client
        if client is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    await client.unsubscribe(list(self._topic_filters))
                    while self._unacknowledged or self.queued():
                        await asyncio.sleep(STOP_POLL)
            except (aiomqtt.MqttError, TimeoutError):
                log.warning("the bridge leaves messages to the broker", messages=len(self._unacknowledged))
        if self._owners is not None:
            self._owners.tell(leaves=True)
        await end_tasks(self._tasks)
        for session in list(self._by_key.values()):
            session.close()
        self._by_key.clear()

    async def _greet(self, owners: Owners) -> None:
        while True:
            owners.tell(greets=True)
            await asyncio.sleep(GREETING_PERIOD)

    async def _run(self) -> None:
        pause = RECONNECT_FIRST
        while True:
            try:
                async with self._connect() as client:
                    pause = RECONNECT_FIRST
                    await self._serve(client)
            except aiomqtt.MqttError as error:
                if self._stopping:
                    return
                self._counters.add("closed", "bridge_broker_lost")
                log.warning("no connection to the broker", error=str(error), retry_in=round(pause, 1))
            finally:
                self._client = None
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, RECONNECT_MAX)

    async def _serve(self, client: BrokerClient) -> None:
        """Use a connection until it is lost. Raises MqttError."""
        self._connection += 1
        self._unacknowledged.clear()
        self._queued.extendleft(reversed(self._publishing.values()))
        self._publishing.clear()
        self._has_queued.set()
        for topic_filter in self._topic_filters:
            codes = await client.subscribe(topic_filter, qos=1)
            if any((code if isinstance(code, int) else code.value) >= REFUSED for code in codes):
                raise aiomqtt.MqttError(f"the broker refuses the subscription {topic_filter}")
        self._client = client
        self.connections += 1
        log.info("connected to the broker")
        sender = asyncio.get_running_loop().create_task(self._send_queued(client))
        try:
            async for message in client.messages:
                await self._take(message)
        finally:
            await end_tasks([sender])

    # ------------------------------------------------------------ up

    async def _take(self, message: aiomqtt.Message) -> None:
        """Forward a message of the broker, when the uplink takes it."""
        topic = str(message.topic)
        reference = None
        if message.qos:
            reference = (self._connection, [message.mid, False])
            self._unacknowledged.append(reference[1])
        mapped = topic if topic.startswith("kp1/") else apply_first(self._up, topic)
        if mapped is None or mapped.endswith(OWN_ENDINGS):
            self._counters.add("ignored", "bridge_topic")
            self.confirmed(reference)
            return
        payload = message.payload if isinstance(message.payload, bytes) else b""
        timeout = 1000 * getattr(message.properties, "MessageExpiryInterval", 0)
        data = mapped.encode()
        while True:
            self._room.clear()
            session = self._session_of(data)
            if session.publish(data, payload, timeout, reference):
                break
            await self._room.wait()
        if self._owners is not None:
            self._owners.use(session)
            self._owners.tell()

    def _session_of(self, topic: bytes) -> BridgedEndpoint:
        key = endpoint_key_of(self._router, topic)
        session = self._by_key.get(key)
        if session is not None:
            self._by_key.move_to_end(key)
            return session
        if len(self._by_key) >= self._endpoints_max:
            oldest = next(iter(self._by_key.values()))
            self._counters.add("closed", "bridge_too_many_endpoints")
            self.ended(oldest)
            oldest.close()
        session = BridgedEndpoint(self._uplink, self._sessions, self._counters, PROTOCOL, self, key)
        self._by_key[key] = session
        return session

    def confirmed(self, reference: Any) -> None:
        """Acknowledge a message to the broker, in its turn."""
        if reference is None:
            return
        connection, entry = reference
        entry[1] = True
        if connection != self._connection:
            return
        while self._unacknowledged and self._unacknowledged[0][1]:
            packet_id, _ = self._unacknowledged.popleft()
            if self._client is not None:
                self._client.acknowledge(packet_id)

    def resumed(self) -> None:
        """Offer the message again that the uplink did not take."""
        self._room.set()

    def ended(self, session: BridgedEndpoint) -> None:
        """Forget a session."""
        self._by_key.pop(session.endpoint_key, None)
        if self._owners is not None and session.endpoint_key is not None:
            self._owners.forget(session.endpoint_key)

    # ------------------------------------------------------------ down

    def send(self, topic: bytes, payload: bytes) -> bool:
        """Publish an answer or a push to the broker, now or when it is back."""
        text = topic.decode("utf-8", "replace")
        if self.queued() >= self._queued_max or self._queued_bytes + len(payload) > self._queued_bytes_max:
            self._counters.add("dropped", "bridge_queue_full")
            return False
        self._queued.append((apply_first(self._down, text) or text, payload))
        self._queued_bytes += len(payload)
        self._has_queued.set()
        return True

    async def _send_queued(self, client: BrokerClient) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._has_queued.wait()
            await self._may_publish.acquire()
            if not self._queued:
                self._may_publish.release()
                self._has_queued.clear()
                continue
            self._published += 1
            self._publishing[self._published] = self._queued.popleft()
            task = loop.create_task(self._publish(client, self._published))
            task.add_done_callback(lambda _: self._may_publish.release())

    async def _publish(self, client: BrokerClient, number: int) -> None:
        """Publish a message at QoS 1. It stays in `_publishing`, for the next connection, if this one is lost."""
        connection = self._connection
        topic, payload = self._publishing[number]
        try:
            await client.publish(topic, payload, qos=1, timeout=float("inf"))
        except aiomqtt.MqttError:
            return
        except ValueError:
            # A topic that MQTT does not know, or one that is too long.
            self._counters.add("dropped", "no_topic")
        if connection == self._connection and self._publishing.pop(number, None) is not None:
            self._queued_bytes -= len(payload)
