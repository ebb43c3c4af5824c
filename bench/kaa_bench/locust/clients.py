"""Devices for Locust: blocking sockets, which gevent makes cooperative, on the project's codecs.

Each `send` returns when the message is acknowledged. It raises OSError of the socket, or DeviceError for an answer that
is not a success.
"""

import random
import socket
import time

from kaa_gateway.wire import coap, kpudp

from kaa_bench import mqtt_packets as mqtt
from kaa_bench.errors import BenchError
from kaa_bench.packets import MqttVersion

TIMEOUT_S = 30.0
RECEIVE_SIZE = 65536
PACKET_IDS = 65_535
REQUEST_IDS = 2**31 - 1
REFUSED = 0x80
"""The first reason code of MQTT 5 that refuses."""

COAP_CON, COAP_ACK, COAP_RST = 0, 2, 3
COAP_EMPTY, COAP_POST = 0, 2
COAP_URI_PATH = 11
SUCCESS = 2
MESSAGE_IDS = 1 << 16
TOKEN_SIZE = 4

ACK_TIMEOUT_S = 2.0
JITTER = 0.5
TRANSMISSIONS = 5


class DeviceError(BenchError):
    """The gateway's answer is not a success. Locust groups failures by the message."""


class MqttDevice:
    """An MQTT device that sends at QoS 1, or requests that the extension answers. With MQTT 5 it uses a topic alias."""

    def __init__(self, address: tuple[str, int], client_id: str, version: MqttVersion = "3.1.1") -> None:
        self._socket = socket.create_connection(address, TIMEOUT_S)
        self._level = mqtt.LEVEL_5 if version == "5" else mqtt.LEVEL_3_1_1
        self._rest = b""
        self._packet_id = 0
        self._request_id = 0
        self._aliased = ""
        self._send(mqtt.Connect(client_id, keep_alive=0, level=self._level))
        answer = self._receive()
        if not isinstance(answer, mqtt.Connack) or answer.return_code:
            raise DeviceError(f"CONNECT was answered with {answer}")
        self._alias = min(1, answer.topic_alias_maximum)

    def send(self, path: str, payload: bytes) -> None:
        """Send PUBLISH at QoS 1, and wait for PUBACK."""
        self._packet_id = self._packet_id % PACKET_IDS + 1
        topic = "" if self._alias and path == self._aliased else path
        self._aliased = path
        self._send(mqtt.Publish(topic, payload, 1, self._packet_id, topic_alias=self._alias))
        while True:
            match self._receive():
                case mqtt.Puback(packet_id=packet_id, reason_code=code) if packet_id == self._packet_id:
                    if code >= REFUSED:
                        raise DeviceError(f"PUBACK {code:#04x}")
                    return
                case mqtt.Publish(topic=topic, payload=said) if topic == f"{path}/error":
                    raise DeviceError(said.decode(errors="replace"))

    def request(self, path: str, payload: bytes) -> bytes:
        """Send PUBLISH at QoS 0 with a request ID. Return the payload of the response."""
        self._request_id = self._request_id % REQUEST_IDS + 1
        topic = f"{path}/{self._request_id}"
        self._send(mqtt.Publish(topic, payload))
        while True:
            match self._receive():
                case mqtt.Publish(topic=answered, payload=said) if answered == f"{topic}/status":
                    return said
                case mqtt.Publish(topic=answered, payload=said) if answered == f"{topic}/error":
                    raise DeviceError(said.decode(errors="replace"))

    def close(self) -> None:
        """Send DISCONNECT and close."""
        try:
            self._send(mqtt.Disconnect())
        finally:
            self._socket.close()

    def _send(self, packet: "mqtt.Packet") -> None:
        self._socket.sendall(mqtt.encode(packet, self._level))

    def _receive(self) -> object:
        """Return the next packet. Acknowledge a PUBLISH at QoS 1."""
        while True:
            packet, used = mqtt.decode(self._rest, self._level) if self._rest else (None, 0)
            if packet is not None:
                self._rest = self._rest[used:]
                if isinstance(packet, mqtt.Publish) and packet.qos:
                    self._send(mqtt.Puback(packet.packet_id))
                return packet
            data = self._socket.recv(RECEIVE_SIZE)
            if not data:
                raise DeviceError("closed by the gateway")
            self._rest += data


class _DatagramDevice:
    """A connected UDP socket with retransmission."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _exchange(self, datagram: bytes) -> None:
        """Send, and pass received datagrams to `_take` until the message is answered."""
        wait = ACK_TIMEOUT_S * (1 + JITTER * random.random())
        for _ in range(TRANSMISSIONS):
            self._socket.send(datagram)
            until = time.monotonic() + wait
            while (left := until - time.monotonic()) > 0:
                self._socket.settimeout(left)
                try:
                    if self._take(self._socket.recv(RECEIVE_SIZE)):
                        return
                except TimeoutError:
                    break
            wait *= 2
        raise DeviceError("not answered")

    def _take(self, datagram: bytes) -> bool:
        raise NotImplementedError


class CoapDevice(_DatagramDevice):
    """A CoAP device that sends confirmable POSTs."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self._message_id = random.randrange(MESSAGE_IDS)
        self._token = b""

    def send(self, path: str, payload: bytes) -> None:
        """Send a POST, and wait for the response."""
        self._message_id = (self._message_id + 1) % MESSAGE_IDS
        self._token = random.randbytes(TOKEN_SIZE)
        options = tuple((COAP_URI_PATH, segment.encode()) for segment in path.split("/"))
        message = coap.Message(COAP_CON, COAP_POST, self._message_id, self._token, options, payload)
        self._exchange(coap.encode(message))

    def _take(self, datagram: bytes) -> bool:
        message = coap.decode(datagram)
        if message.type == COAP_CON:
            self._socket.send(coap.encode(coap.Message(COAP_ACK, COAP_EMPTY, message.message_id)))
        if message.type == COAP_RST and message.message_id == self._message_id:
            raise DeviceError("reset")
        if message.code == COAP_EMPTY or message.token != self._token:
            return False
        if message.code >> 5 != SUCCESS:
            raise DeviceError(f"{message.code >> 5}.{message.code & 0x1F:02d}")
        return True


class KpudpDevice(_DatagramDevice):
    """A KP/UDP device that sends CONFIRMED DATA, with a path alias after the first acknowledgement."""

    ALIAS = 1

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self._epoch = random.getrandbits(8)
        self._message_id = random.randrange(MESSAGE_IDS)
        self._path = ""
        self._registered = ""

    def send(self, path: str, payload: bytes) -> None:
        """Send CONFIRMED DATA, and wait for ACK. All messages of a device go to one path, so there is one alias."""
        self._message_id = (self._message_id + 1) % MESSAGE_IDS
        self._path = path
        try:
            self._exchange(self._datagram(payload))
        except _UnknownAliasError:
            self._registered = ""
            self._exchange(self._datagram(payload))
        self._registered = path

    def _datagram(self, payload: bytes) -> bytes:
        path = None if self._registered == self._path else self._path
        message = kpudp.Message(
            kpudp.Type.CONFIRMED_DATA, self._message_id, self.ALIAS, path, payload=payload
        )
        return kpudp.encode(self._epoch, [message])

    def _take(self, datagram: bytes) -> bool:
        epoch, messages = kpudp.decode(datagram)
        done = False
        for message in messages if epoch == self._epoch else ():
            match message.type:
                case kpudp.Type.PING:
                    self._answer(kpudp.Type.PONG, message.message_id, message.payload)
                case kpudp.Type.PUSH | kpudp.Type.RESPONSE:
                    self._answer(kpudp.Type.ACK, message.message_id)
                case kpudp.Type.ACK if message.message_id == self._message_id:
                    done = True
                case kpudp.Type.RESET if message.message_id == self._message_id:
                    if message.status == kpudp.Reason.UNKNOWN_ALIAS:
                        raise _UnknownAliasError("unknown alias")
                    raise DeviceError(f"reset {message.status}")
        return done

    def _answer(self, kind: kpudp.Type, message_id: int, payload: bytes = b"") -> None:
        self._socket.send(kpudp.encode(self._epoch, [kpudp.Message(kind, message_id, payload=payload)]))


class _UnknownAliasError(DeviceError):
    """Send the path again, because the gateway has forgotten the device."""
