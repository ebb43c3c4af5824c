"""A fuzz harness for every protocol: hostile devices, and a gateway that answers in any order.

A run begins with the `examples` of the class, and changes them. A protocol passes if it raises nothing but its own
Violations, and if it does not matter how the bytes of a connection are cut into reads.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from kaa_gateway.plugins.driver import Driver

if TYPE_CHECKING:
    from kaa_gateway.plugins.protocol import DeviceProtocol

STEPS_MAX = 40
INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0x0A, 0x0D)


class FuzzFailure(AssertionError):  # noqa: N818 - it is what the harness looks for
    """A protocol has failed. `stream` is what the device had sent until then."""

    def __init__(self, stream: bytes, cause: str) -> None:
        super().__init__(f"{cause}\nafter the bytes {stream.hex()}")
        self.stream = stream


def fuzz(
    protocol_class: type[DeviceProtocol],
    *,
    seconds: float = 5.0,
    seed: int = 0,
    runs_max: int | None = None,
    options: dict[str, Any] | None = None,
) -> int:
    """Play devices for so many seconds, or `runs_max` of them; return how many. Raises FuzzFailure."""
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    runs = 0
    while runs != runs_max and (runs_max is not None or time.monotonic() < end):
        play(protocol_class, chance, options or {})
        runs += 1
    return runs


def play(protocol_class: type[DeviceProtocol], chance: random.Random, options: dict[str, Any]) -> None:
    """Play one device, and then the same bytes cut otherwise. Raises FuzzFailure."""
    stream = b""
    driver = _driver(protocol_class, options, stream)
    for _ in range(chance.randrange(1, STEPS_MAX)):
        if chance.random() < 0.6:
            data = _message(chance, protocol_class.examples)
            stream += data
            _try(stream, driver.feed, data)
        else:
            _try(stream, _event, driver, chance)
    _try(stream, driver.stop)
    _check_cuts(protocol_class, options, stream, chance)


def _driver(protocol_class: type[DeviceProtocol], options: dict[str, Any], stream: bytes) -> Driver:
    made: list[Driver] = []
    _try(stream, lambda: made.append(Driver(protocol_class, options)))
    return made[0]


def _message(chance: random.Random, examples: tuple[bytes, ...]) -> bytes:
    """Return a message of an example, perhaps damaged; or any bytes."""
    if not examples or chance.random() < 0.1:
        return chance.randbytes(chance.randrange(1, 64))
    message = bytearray(chance.choice(examples))
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2, 4))):
        at = chance.randrange(len(message))
        change = chance.randrange(4)
        if change == 0:
            message[at] = chance.choice(INTERESTING)
        elif change == 1:
            message[at] ^= 1 << chance.randrange(8)
        elif change == 2 and len(message) > 1:
            del message[at : at + chance.randrange(1, 8)]
        else:
            message[at:at] = chance.randbytes(chance.randrange(1, 8))
        if not message:
            return b"\0"
    return bytes(message)


def _event(driver: Driver, chance: random.Random) -> None:
    """Let something happen that the gateway may tell."""
    choice = chance.randrange(8)
    if driver.closed_by is not None:
        return
    if choice == 0 and driver.asked:
        driver.accept_token()
    elif choice == 1 and driver.asked:
        driver.reject_token()
    elif choice == 2 and driver.unconfirmed():
        driver.confirm()
    elif choice == 3 and driver.unconfirmed():
        driver.refuse()
    elif choice == 4 and driver.unanswered():
        driver.answer(chance.choice((b"", b"{}", b'{"a": 1}', b"\xff\x00", b"[" * 50)))
    elif choice == 5 and driver.unanswered():
        driver.answer(b"", chance.choice((404, 500, 503, 504)), "refused")
    elif choice == 6:
        path = chance.choice(("/command/reboot", "/command/", "/config/json", "", "/\u00fc"))
        driver.push(path, chance.choice((b"", b"{}", b"1", b"\xff", b'"text"', b"x" * 300)))
    elif choice == 7:
        driver.run_timer()


def _check_cuts(
    protocol_class: type[DeviceProtocol], options: dict[str, Any], stream: bytes, chance: random.Random
) -> None:
    """Check that a protocol does the same with the same bytes, however they are cut."""
    whole, cut = (_driver(protocol_class, options, stream) for _ in range(2))
    _try(stream, whole.feed, stream)
    at = 0
    while at < len(stream):
        size = chance.choice((1, 1, 2, 3, 7, 50))
        _try(stream, cut.feed, stream[at : at + size])
        at += size
    if (whole.sent, whole.published, whole.closed_by) != (cut.sent, cut.published, cut.closed_by):
        raise FuzzFailure(stream, "the protocol does something else when the bytes are cut otherwise")


def _try(stream: bytes, act: Any, *arguments: Any) -> None:
    try:
        act(*arguments)
    except Exception as error:
        raise FuzzFailure(stream, f"{type(error).__name__}: {error}") from error
