"""An MQTT 5 client at the other end of a connection of a WorkerDouble."""

from typing import TypeVar

from kaa_gateway.identity.clients import Client

from tests.support.mqtt5 import codec
from tests.support.mqtt5.packets import Connack, Connect, Packet
from tests.support.mqtt5.properties import Property
from tests.unit.kp.device_double import DEVICE_HOST, Device
from tests.unit.kp.worker_double import ANONYMOUS_CLIENT, WorkerDouble

AnyPacket = TypeVar("AnyPacket", bound=Packet)


class Mqtt5Device(Device):
    """Sends and receives packets of MQTT 5."""

    behind_connack: list[Packet]
    """What came with CONNACK."""

    def send(self, *packets: Packet | bytes) -> None:
        """Send packets, or bytes as they are."""
        self.send_bytes(b"".join(each if isinstance(each, bytes) else codec.encode(each) for each in packets))

    def received(self) -> list[Packet]:
        """What has come since the last call."""
        self._look()
        data, self._unseen = self._unseen, b""
        packets = []
        while data:
            packet, size = codec.decode(data)
            assert packet is not None
            packets.append(packet)
            data = data[size:]
        return packets

    def only(self, kind: type[AnyPacket]) -> AnyPacket:
        """The one packet that has come since the last call."""
        (packet,) = self.received()
        assert isinstance(packet, kind), packet
        return packet


def connect(
    worker: WorkerDouble, packet: Connect | None = None, client: Client = ANONYMOUS_CLIENT
) -> tuple[Mqtt5Device, Connack]:
    """A client that has sent CONNECT and was admitted, and its CONNACK."""
    device = unadmitted(worker, packet or Connect("id"))
    worker.admit(client)
    received = device.received()
    assert isinstance(received[0], Connack)
    device.behind_connack = received[1:]
    return device, received[0]


def unadmitted(worker: WorkerDouble, packet: Connect | bytes) -> Mqtt5Device:
    """A client that has sent CONNECT."""
    assert worker.listener is not None
    device = Mqtt5Device(worker.loop, worker.listener, DEVICE_HOST)
    device.send(packet)
    return device


def lasting(
    client_id: str = "id", *, clean_start: bool = False, expiry: int = 600, **more: object
) -> Connect:
    """A CONNECT that asks for a session which outlives its connection."""
    return Connect(client_id, clean_start, properties=((Property.SESSION_EXPIRY_INTERVAL, expiry),), **more)  # type: ignore[arg-type]
