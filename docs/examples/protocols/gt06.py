"""GT06, the protocol of many GPS trackers (Concox and others), as a plug-in of the Kaa device gateway.

A packet over TCP is

    78 78 | length (1) | protocol number (1) | content | serial number (2) | CRC (2) | 0D 0A

or begins with 79 79 and has a length of two bytes. The length counts from the protocol number to the CRC. The CRC is
CRC-16/X-25 over what stands between the start bits and the CRC. A tracker logs in with its IMEI, which is the token of
its endpoint here, and expects that login, heartbeat and alarm are answered with its serial number.

Positions go to `path`, alarms to `alarm_path`, as JSON, with the battery level of the latest heartbeat. A command whose
payload is `{"command": "DYD#"}` is sent to the tracker as text. What the tracker replies becomes the result.

Source: GPS tracker communication protocol GT06, version 1.8.1 (Concox).
"""

import json
import struct
from datetime import UTC, datetime
from typing import Any

from kaa_gateway.plugins import Answer, DeviceProtocol, Push, Violation

LOGIN, POSITION, HEARTBEAT, REPLY, ALARM = 0x01, 0x12, 0x13, 0x15, 0x16
POSITIONS = (POSITION, 0x22)
COMMAND = 0x80
STOP = b"\r\n"
DEGREE = 1_800_000
"""Units of a degree: a minute has 30,000."""
COMMANDS_MAX = 8
"""Commands that wait for the reply of the tracker."""
COMMAND_SIZE_MAX = 200
"""Bytes of the text of a command."""
ALARMS = {0: "normal", 1: "sos", 2: "power cut", 3: "shock", 4: "fence in", 5: "fence out"}


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ 0x8408 if value & 1 else value >> 1
        table.append(value)
    return table


CRC_TABLE = _crc_table()


def crc(data: bytes) -> int:
    """Return the CRC-16/X-25 of bytes."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ CRC_TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFF


def encode(number: int, content: bytes, serial: int) -> bytes:
    """Return a packet."""
    body = struct.pack(">BB", len(content) + 5, number) + content + struct.pack(">H", serial)
    return b"xx" + body + struct.pack(">H", crc(body)) + STOP


def read_position(content: bytes) -> dict[str, Any]:
    """Return what the first 18 bytes of a position say."""
    try:
        year, month, day, hour, minute, second = content[:6]
        _, latitude, longitude, speed, course = struct.unpack_from(">BIIBH", content, 6)
        at = datetime(2000 + year, month, day, hour, minute, second, tzinfo=UTC)
    except (struct.error, ValueError):
        raise Violation("malformed_position") from None
    return {
        "time": at.isoformat(),
        "latitude": round(latitude / DEGREE * (1 if course & 0x0400 else -1), 6),
        "longitude": round(longitude / DEGREE * (-1 if course & 0x0800 else 1), 6),
        "speed": speed,
        "course": course & 0x03FF,
        "fixed": bool(course & 0x1000),
    }


class Gt06(DeviceProtocol):
    """One tracker."""

    options_with_defaults = {"path": "dcx/json", "alarm_path": "dcx/json", "command_extension": "cex"}
    reasons = (
        "no_start", "no_stop", "wrong_crc", "malformed_login", "malformed_position", "malformed_content",
        "not_logged_in",
    )  # fmt: skip
    examples = (
        bytes.fromhex("78780D01012345678901234500018CDD0D0A"),
        bytes.fromhex("78781F120B081D112E10CF027AC7EB0C46584900148F01CC00287D001FB8000380810D0A"),
        encode(HEARTBEAT, bytes([0x44, 6, 4, 0, 2]), 3),
        encode(REPLY, bytes([6, 0, 0, 0, 1]) + b"OK", 4),
    )

    imei: str | None = None
    battery: int | None = None
    sent_commands = 0

    @classmethod
    def message_size(cls, data: bytes, at: int) -> int:
        if len(data) - at < 4:
            return 0
        if data[at : at + 2] == b"yy":
            return int.from_bytes(data[at + 2 : at + 4], "big") + 6
        return data[at + 2] + 5

    def opened(self) -> None:
        self.commands: dict[int, tuple[str, int]] = {}

    def receive(self, message: bytes) -> None:
        head = {b"xx": 3, b"yy": 4}.get(message[:2])
        if head is None:
            raise Violation("no_start")
        if len(message) < head + 7 or message[-2:] != STOP:
            raise Violation("no_stop")
        number, content = message[head], message[head + 1 : -6]
        serial, sum_sent = struct.unpack_from(">HH", message, len(message) - 6)
        if crc(message[2:-4]) != sum_sent:
            raise Violation("wrong_crc")
        if number == LOGIN:
            self.log_in(content, serial)
        elif self.imei is None:
            raise Violation("not_logged_in")
        elif number in POSITIONS:
            self.publish_position(self.options["path"], content, (number, serial))
        elif number == HEARTBEAT:
            if len(content) < 2:
                raise Violation("malformed_content")
            self.battery = content[1]
            self.send(encode(HEARTBEAT, b"", serial))
        elif number == ALARM:
            code = content[-2] if len(content) > 19 else 0
            alarm = ALARMS.get(code, str(code))
            self.publish_position(self.options["alarm_path"], content, (number, serial), alarm)
        elif number == REPLY:
            self.on_reply(content)

    def log_in(self, content: bytes, serial: int) -> None:
        digits = content[:8].hex()
        if len(digits) != 16 or not digits.isdecimal():
            raise Violation("malformed_login")
        self.serial_of_login = serial
        self.imei = digits.lstrip("0") or "0"
        self.identify(self.imei)

    def identified(self, token: str) -> None:
        self.send(encode(LOGIN, b"", self.serial_of_login))
        self.request(f"{self.options['command_extension']}/command", b'{"observe": true}')

    def publish_position(
        self, path: str, content: bytes, reference: tuple[int, int], alarm: str | None = None
    ) -> None:
        sample = read_position(content)
        if self.battery is not None:
            sample["battery"] = self.battery
        if alarm is not None:
            sample["alarm"] = alarm
        self.publish(path, json.dumps(sample).encode(), reference)

    def confirmed(self, reference: Any) -> None:
        number, serial = reference
        # A tracker repeats an alarm until it is answered; of positions it expects no answer.
        if number == ALARM:
            self.send(encode(ALARM, b"", serial))

    def answered(self, reference: Any, answer: Answer) -> None:
        # Only COMMANDS is asked for: the commands that were sent while the tracker was away.
        if answer.is_success:
            self.send_commands("/command", answer.payload)

    def pushed(self, push: Push) -> bool:
        is_command = push.extension == self.options["command_extension"] and push.path.startswith("/command")
        return is_command and self.send_commands(push.path, push.payload)

    def send_commands(self, path: str, payload: bytes) -> bool:
        """Send commands, each with its type in the path or beside it (11/CEP). Return False if that is impossible."""
        kind = path.removeprefix("/command").strip("/")
        try:
            received = json.loads(payload)
            if not isinstance(received, list):
                return False
            commands = [
                (kind or each["type"], each["id"], each["payload"]["command"].encode("ascii"))
                for each in received
            ]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return False
        free = COMMANDS_MAX - len(self.commands)
        if len(commands) > free or any(len(text) > COMMAND_SIZE_MAX for _, _, text in commands):
            return False
        for kind, identifier, text in commands:
            self.sent_commands = self.sent_commands % 0xFFFF + 1
            self.commands[self.sent_commands] = (kind, identifier)
            content = bytes([len(text) + 4]) + self.sent_commands.to_bytes(4, "big") + text + b"\x00\x01"
            self.send(encode(COMMAND, content, self.sent_commands))
        return True

    def on_reply(self, content: bytes) -> None:
        """Publish the result of the command that the tracker replies to."""
        if len(content) < 5 or not 4 <= content[0] <= len(content) - 1:
            raise Violation("malformed_content")
        command = self.commands.pop(int.from_bytes(content[1:5], "big"), None)
        if command is not None:
            kind, identifier = command
            reply = content[5 : 1 + content[0]].decode("ascii", "replace")
            result = {"id": identifier, "statusCode": 200, "payload": {"reply": reply}}
            extension = self.options["command_extension"]
            self.publish(f"{extension}/result/{kind}", json.dumps([result]).encode())
