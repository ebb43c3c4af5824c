"""A plug-in that speaks as much of MQTT 3.1.1 as the load generator, to show what a protocol in Python costs.

The row `plugin` of the bench sends the load of `qos1` to it.
"""

from kaa_gateway.plugins import DeviceProtocol, Violation

CONNECT, PUBLISH = 1, 3
CONNACK = bytes([0x20, 2, 0, 0])


class MqttPlugin(DeviceProtocol):
    """One MQTT client that publishes at QoS 1."""

    reasons = ("unexpected_packet",)

    @classmethod
    def message_size(cls, data: bytes, at: int) -> int:
        """Return the size of the packet at a position."""
        length, shift = 0, 0
        for place in range(at + 1, min(at + 5, len(data))):
            length |= (data[place] & 0x7F) << shift
            if data[place] < 0x80:
                return place + 1 - at + length
            shift += 7
        return 0

    def receive(self, message: bytes) -> None:
        """Answer CONNECT, and publish PUBLISH."""
        kind = message[0] >> 4
        if kind == PUBLISH:
            at = 2 if message[1] < 0x80 else 3
            end = at + 2 + int.from_bytes(message[at : at + 2], "big")
            topic = message[at + 2 : end].decode()
            self.publish(topic, message[end + 2 :], message[end : end + 2])
        elif kind == CONNECT:
            self.send(CONNACK)
        else:
            raise Violation("unexpected_packet")

    def confirmed(self, reference: bytes) -> None:
        """Send PUBACK."""
        self.send(b"\x40\x02" + reference)
