"""Any bytes as what JetStream answers to a publication, while devices publish to a durable extension instance.

An input is a sequence of steps. A byte below 0x80 says how many bytes (less one) of what follows are the answer to the
current publication; one from 0xC0 on says it in units of 32 bytes; those between are events, `EVENTS`. Whatever was
played, at the end the stream stores, and then every message that asked for an acknowledgement has one.
"""

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.bus import subjects
from kaa_gateway.bus.durable import DurableLanes
from kaa_gateway.config.keys import Http
from kaa_gateway.kp.pending import PendingRequests
from kaa_gateway.net.tcp_listener import TcpListener

from tests.fuzz.simulation import EVENT, LONG, UNIT
from tests.support.http_server import http_server
from tests.support.nats import HOST
from tests.unit.kp.device_double import DEVICE_HOST, Peer
from tests.unit.kp.worker_double import APP, REPLY_TO, WorkerDouble

STREAM = subjects.stream("dcx")
SUBJECT = subjects.service("dcx", "esp", subjects.CLIENT_DATA)
TAG = 0x5A17
ACK_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 10.0
PENDING_MAX = 4096
REMEMBERED = 32
"""Publications that an answer may come to."""
OUTSTANDING_MAX = 100
"""Messages that a device has sent and nobody has acknowledged: they fit into its socket."""
REQUESTS_MAX = 3
PACKET_IDS = 65_535
ROUNDS_MAX = 1000
"""Of answers at the end; a lane that needs more hangs."""
PUBLICATION = re.compile(rb"HPUB ([^ ]+) ([^ ]+) [0-9]+ ([0-9]+)\r\n|(?:SUB [^\r]+|PING)\r\n")
GOOD = b'{"stream":"%b","seq":1}' % STREAM.encode()
(QOS_0, QOS_1, QOS_2, REQUEST, GOOD_ANSWER, SKIP, NO_STREAM, PAUSE, SILENCE, RECONNECT) = range(10)


class DurableSimulation(WorkerDouble):
    """An MQTT device and an HTTP client, a lane, and the stream's side of it."""

    def __init__(self) -> None:
        super().__init__()
        loop: Any = self.loop
        lanes = [("dcx", STREAM, SUBJECT)]
        self.durable = DurableLanes(
            self.link, self.downlink, lanes, REPLY_TO, PENDING_MAX, ACK_TIMEOUT_S, TAG
        )
        self.downlink.set_durable(self.durable)
        self.router.set_durable(self.durable)
        self._requests = PendingRequests(REQUESTS_MAX + 1, REQUEST_TIMEOUT_S)
        http = http_server(self, self._requests, Http())
        self._http = TcpListener(
            loop, http, self.counters, protocol="http", output_max=2**20, connections_max=10
        )
        self._http.start(HOST, 0, reuse_port=False)
        self._client = Peer(self._http, DEVICE_HOST)
        self._unanswered = 0
        self._device = self.device()
        self._packet_id = 0
        self._outstanding: set[int] = set()
        self._replies: deque[bytes] = deque(maxlen=REMEMBERED)
        self._current = 0

    def play(self, data: bytes) -> None:
        """Play an input; AssertionError if something is not acknowledged in the end, or is twice."""
        at = 0
        while at < len(data):
            step = data[at]
            at += 1
            if EVENT <= step < LONG:
                EVENTS[(step - EVENT) % len(EVENTS)](self)
            else:
                size = step + 1 if step < EVENT else (step - LONG + 1) * UNIT
                self._answer(data[at : at + size])
                at += size
            self._settle()
        self._end()

    # ------------------------------------------------------------ steps

    def _publish(self, qos: int) -> None:
        if len(self._outstanding) >= OUTSTANDING_MAX:
            return
        packet_id = 0
        if qos:
            packet_id = self._packet_id = self._packet_id % PACKET_IDS + 1
            self._outstanding.add(packet_id)
        self._device.publish(f"kp1/{APP}/dcx/t/json/1", b"", qos, packet_id)

    def _request(self) -> None:
        if self._unanswered >= REQUESTS_MAX:
            return
        query = b"?answer=no" if self._unanswered else b""
        self._client.send(b"POST /kp1/%b/dcx/t/json%b HTTP/1.1\r\nHost: g\r\n\r\n" % (APP.encode(), query))
        self._unanswered += 1

    def _answer(self, answer: bytes) -> None:
        if self._replies:
            reply = self._replies[self._current % len(self._replies)]
            self.from_nats(b"MSG %b 2 %d\r\n%b\r\n" % (reply, len(answer), answer))

    def _skip(self) -> None:
        self._current += 1

    def _no_stream(self) -> None:
        if self._replies:
            reply, header = self._replies[self._current % len(self._replies)], b"NATS/1.0 503\r\n\r\n"
            self.from_nats(b"HMSG %b 2 %d %d\r\n%b\r\n" % (reply, len(header), len(header), header))

    def _pass(self, seconds: float) -> None:
        self.loop.pass_time(seconds)
        self.durable.check()
        self._requests.expire(self.loop.time())
        self.loop.run()

    def _reconnect(self) -> None:
        self.link.abort()
        self.loop.run()
        self.connect_nats()

    # ------------------------------------------------------------ what follows a step

    def _settle(self) -> None:
        self.loop.run()
        self.identify()
        self.confirm()
        if not self.link.ready:
            self.connect_nats()
        data, self._nats_transport.written = self._nats_transport.written, b""
        while data:
            line = PUBLICATION.match(data)
            assert line is not None, data[:80]
            if line[1] is not None:
                assert line[1].decode() == SUBJECT
                self._replies.append(line[2])
            data = data[line.end() + (int(line[3]) + 2 if line[3] else 0) :]
        for packet in self._device.received():
            self._take(packet)
        self._unanswered -= self._client.look().count(b"HTTP/1.1 ")
        assert not self._client.closed
        self.loop.run()

    def _take(self, packet: Any) -> None:
        match packet:
            case mqtt.Puback() | mqtt.Pubcomp():
                self._outstanding.remove(packet.packet_id)
            case mqtt.Pubrec():
                assert packet.packet_id in self._outstanding
                self._device.send(mqtt.Pubrel(packet.packet_id))
            case mqtt.Publish(qos=1):
                self._device.send(mqtt.Puback(packet.packet_id))
            case mqtt.Publish(qos=2):
                self._device.send(mqtt.Pubrec(packet.packet_id))
            case mqtt.Pubrel():
                self._device.send(mqtt.Pubcomp(packet.packet_id))

    def _end(self) -> None:
        """The stream stores all."""
        for _ in range(ROUNDS_MAX):
            self._settle()
            while self._replies:
                self.from_nats(b"MSG %b 2 %d\r\n%b\r\n" % (self._replies.popleft(), len(GOOD), GOOD))
            self._settle()
            if not (self._replies or self._outstanding or self._unanswered or self.durable.backlog()):
                break
            self._pass(ACK_TIMEOUT_S)
        else:
            raise AssertionError(f"{self.durable.backlog()} bytes, {len(self._outstanding)} unacknowledged")
        self._current = 0
        assert self.link.backlog == 0
        assert self._requests.count() == 0
        assert not self._device.closed
        self.losses.clear()


EVENTS: Sequence[Callable[[DurableSimulation], object]] = [
    lambda simulation: simulation._publish(0),
    lambda simulation: simulation._publish(1),
    lambda simulation: simulation._publish(2),
    DurableSimulation._request,
    lambda simulation: simulation._answer(GOOD),
    DurableSimulation._skip,
    DurableSimulation._no_stream,
    lambda simulation: simulation._pass(0.2),
    lambda simulation: simulation._pass(2 * ACK_TIMEOUT_S),
    DurableSimulation._reconnect,
]
"""What a step from EVENT on makes happen, by the numbers above."""
