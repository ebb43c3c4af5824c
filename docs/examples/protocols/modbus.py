"""Modbus over a connection that the device opens, as a plug-in of the Kaa device gateway.

Meters and PLCs behind a modem cannot be reached, so the modem connects, and the gateway is the master. A frame has the
form of Modbus TCP, which begins with a header that has its length:

    transaction (2) | protocol, 0 (2) | length (2) | unit (1) | function (1) | data

The modem says who it is with a frame of the function 0x65, whose data is the token of its endpoint. From then on, the
gateway reads `count` holding registers from `first` on, every `interval` seconds, and publishes them as JSON to `path`.
A push with the path `/registers/<number>` and a number as its payload writes a register.

Source: Modbus Messaging on TCP/IP Implementation Guide V1.0b, 3.1; Modbus Application Protocol V1.1b3, 6.3, 6.6, 7.
"""

import json
import struct
from typing import Any

from kaa_gateway.plugins import DeviceProtocol, Push, Violation

READ_HOLDING_REGISTERS, WRITE_SINGLE_REGISTER, REGISTRATION = 0x03, 0x06, 0x65
EXCEPTION = 0x80
FRAME_MIN = 8
FRAME_MAX = 260
WAITING_MAX = 16
"""Requests to the device that wait for a response."""


def encode(transaction: int, unit: int, function: int, data: bytes) -> bytes:
    """Return a frame."""
    return struct.pack(">HHHBB", transaction, 0, len(data) + 2, unit, function) + data


class Modbus(DeviceProtocol):
    """One modem, with one unit behind it."""

    options_with_defaults = {"path": "dcx/json", "unit": 1, "first": 0, "count": 8, "interval": 60.0}
    reasons = ("not_modbus", "wrong_length", "not_registered", "unexpected_response")
    examples = (
        encode(0, 1, REGISTRATION, b"meter-1"),
        encode(1, 1, READ_HOLDING_REGISTERS, bytes([16]) + bytes(range(16))),
        encode(2, 1, WRITE_SINGLE_REGISTER, bytes([0, 5, 1, 2])),
        encode(1, 1, EXCEPTION | READ_HOLDING_REGISTERS, bytes([2])),
    )

    registered = False
    transaction = 0

    @classmethod
    def message_size(cls, data: bytes, at: int) -> int:
        if len(data) - at < 6:
            return 0
        return 6 + int.from_bytes(data[at + 4 : at + 6], "big")

    def opened(self) -> None:
        self.waiting: dict[int, int] = {}

    def receive(self, message: bytes) -> None:
        if not FRAME_MIN <= len(message) <= FRAME_MAX:
            raise Violation("wrong_length")
        transaction, protocol, _, _, function = struct.unpack_from(">HHHBB", message)
        data = message[FRAME_MIN:]
        if protocol != 0:
            raise Violation("not_modbus")
        if function == REGISTRATION:
            self.identify(data.decode("ascii", "replace"))
            return
        if not self.registered:
            raise Violation("not_registered")
        asked = self.waiting.pop(transaction, None)
        if asked is None or asked != function & ~EXCEPTION:
            raise Violation("unexpected_response")
        if function & EXCEPTION:
            self.publish_json({"exception": data[0] if data else None, "function": asked})
        elif function == READ_HOLDING_REGISTERS:
            if len(data) != 1 + 2 * self.options["count"] or data[0] != len(data) - 1:
                raise Violation("wrong_length")
            values = struct.unpack(f">{self.options['count']}H", data[1:])
            self.publish_json({f"r{self.options['first'] + i}": value for i, value in enumerate(values)})

    def identified(self, token: str) -> None:
        if not self.registered:
            self.registered = True
            self.poll()

    def timer(self) -> None:
        self.poll()

    def poll(self) -> None:
        """Ask for the registers, and do it again later."""
        self.ask(READ_HOLDING_REGISTERS, struct.pack(">HH", self.options["first"], self.options["count"]))
        self.set_timer(self.options["interval"])

    def ask(self, function: int, data: bytes) -> bool:
        """Send a request to the device. Return False if too many wait for a response."""
        if len(self.waiting) >= WAITING_MAX:
            return False
        self.transaction = self.transaction % 0xFFFF + 1
        self.waiting[self.transaction] = function
        self.send(encode(self.transaction, self.options["unit"], function, data))
        return True

    def publish_json(self, value: Any) -> None:
        """Publish a sample."""
        self.publish(self.options["path"], json.dumps(value).encode())

    def pushed(self, push: Push) -> bool:
        try:
            register, value = int(push.path.removeprefix("/registers/")), int(push.payload)
        except ValueError:
            return False
        if not (self.registered and 0 <= register <= 0xFFFF and 0 <= value <= 0xFFFF):
            return False
        return self.ask(WRITE_SINGLE_REGISTER, struct.pack(">HH", register, value))
