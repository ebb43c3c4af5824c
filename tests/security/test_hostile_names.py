"""What a device names cannot become part of a NATS subject, a log line, or the label of a metric, on any transport.

Each name stands in each place of a resource path. A token or a path that is odd but printable is a device's own
business, and is forwarded inside ClientData as it came; nothing is ever "cleaned".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import quote_from_bytes

import pytest
from kaa_bench import mqtt_packets as mqtt
from kaa_gateway.wire import coap
from structlog.testing import capture_logs

from tests.fuzz.simulation import SUBJECTS, Simulation

LABEL = re.compile(r"[a-z][a-z0-9_]*")

PRINTABLE = {
    "dot": b".",
    "parent": b"..",
    "star": b"*",
    "greater": b">",
    "subject": b"kaa.v1.service.dcx.esp.ClientData",
    "wildcard subject": b"dcx.>",
    "space": b"a b",
    "percent": b"%2F%00",
    "quotes": b"\"'\\{}",
    "other script": "Gerät-温度".encode(),
}
"""Names that a token or a path may have."""

MALFORMED = {
    "NUL": b"a\0b",
    "tab": b"a\tb",
    "line feed": b"x\nPUB kaa.v1.service.dcx.esp.ClientData 0\r\n",
    "escape sequence": b"\x1b[2J",
    "DEL": b"\x7f",
    "C1 control": b"\xc2\x9b2J",
    "overlong slash": b"\xc0\xaf",
    "overlong NUL": b"\xc0\x80",
    "surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "half a character": b"\xe2\x82",
}
"""Names that nothing may have."""

NAMES = {**PRINTABLE, **MALFORMED}
PLACES = {
    "application version": 1,
    "extension instance": 2,
    "token": 3,
    "path": 4,
}


def over_mqtt(levels: list[bytes]) -> bytes:
    topic = b"/".join(levels)
    body = len(topic).to_bytes(2) + topic + b"\0\1{}"
    assert len(body) < 16_384
    packet = b"\x32" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body
    return mqtt.encode(mqtt.Connect("names", True, 0)) + packet


def over_http(levels: list[bytes]) -> bytes:
    target = b"/" + b"/".join(quote_from_bytes(level, safe="").encode() for level in levels)
    return b"POST %b HTTP/1.1\r\nHost: gateway\r\nContent-Length: 2\r\n\r\n{}" % target


def over_coap(levels: list[bytes]) -> bytes:
    options = tuple((11, level) for level in levels)
    return coap.encode(coap.Message(0, 2, 1, b"", options, b"{}"))


def over_kpudp(levels: list[bytes]) -> bytes:
    path = b"/".join(levels)
    # CONFIRMED DATA with a path and no alias, docs/kp-over-udp.md
    return b"\xb1\x01" + b"\x42\x00\x01" + b"\x00" + bytes([len(path)]) + path + b"{}"


TRANSPORTS: dict[str, Callable[[list[bytes]], bytes]] = {
    "mqtt": over_mqtt,
    "http": over_http,
    "coap": over_coap,
    "kpudp": over_kpudp,
}


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Iterator[tuple[Simulation, Callable[[list[bytes]], bytes]]]:
    name = request.param
    with Simulation(name) as simulation:
        yield simulation, TRANSPORTS[name]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_goes_nowhere_but_into_client_data(
    transport: tuple[Simulation, Callable[[list[bytes]], bytes]], name: str, place: str
) -> None:
    simulation, request = transport
    levels = [b"kp1", b"app_v1", b"dcx", b"token", b"json"]
    levels[PLACES[place]] = NAMES[name]
    with capture_logs() as logs:
        simulation.send(request(levels))
    forwarded = [*simulation.forwarded]
    simulation.end()

    assert {subject for subject, _ in forwarded} <= SUBJECTS
    for event, reason in simulation.counters.by_reason():
        assert LABEL.fullmatch(event), event
        assert LABEL.fullmatch(reason), reason
    for line in logs:
        for value in line.values():
            text = str(value)
            assert text.isprintable(), line
            assert NAMES[name].decode("utf-8", "replace") not in text or len(NAMES[name]) < 3, line

    if name in MALFORMED or place in ("application version", "extension instance"):
        assert forwarded == []
    else:
        ((_, data),) = forwarded
        path = NAMES[name].decode() if place == "path" else "json"
        assert data.resource_path == f"/{path}"
        assert data.app_version_name == "app_v1"


@pytest.mark.parametrize(
    "levels",
    [
        [b"kp1", b"", b"dcx", b"token", b"json"],
        [b"kp1", b"app_v1", b"", b"token", b"json"],
        [b"kp1", b"app_v1", b"dcx", b"", b"json"],
        [b"", b"kp1", b"app_v1", b"dcx", b"token"],
        [b"kp1"],
        [b"kp1", b""],
        [b"KP1", b"app_v1", b"dcx", b"token", b"json"],
        [b"kp1", b"APP_V1", b"dcx", b"token", b"json"],
        [b"kp1", b"app_v1", b"DCX", b"token", b"json"],
    ],
    ids=lambda levels: b"/".join(levels).decode(),
)
def test_empty_levels_and_other_cases_are_no_names(
    transport: tuple[Simulation, Callable[[list[bytes]], bytes]], levels: list[bytes]
) -> None:
    simulation, request = transport
    simulation.send(request(levels))
    assert simulation.forwarded == []
    simulation.end()


@pytest.mark.parametrize("slash", [b"%2F", b"%2f", b"%5C", b"%2e%2e%2f"])
def test_an_encoded_slash_makes_no_level(slash: bytes) -> None:
    """HTTP is the only transport that decodes; `%5C` is a backslash, which is one character like any other."""
    with Simulation("http") as simulation:
        simulation.send(
            b"POST /kp1/app_v1/dcx/a%bb/json HTTP/1.1\r\nHost: gateway\r\nContent-Length: 2\r\n\r\n{}" % slash
        )
        assert [data.resource_path for _, data in simulation.forwarded] == (
            ["/json"] if slash == b"%5C" else []
        )
        simulation.end()


def test_a_slash_within_a_coap_segment_makes_no_level() -> None:
    with Simulation("coap") as simulation:
        simulation.send(over_coap([b"kp1", b"app_v1", b"dcx/token", b"json"]))
        assert simulation.forwarded == []
        simulation.end()


@pytest.mark.parametrize("name", NAMES)
def test_client_ids_user_names_and_passwords_go_nowhere(name: str) -> None:
    """Neither do those of MQTT's CONNECT, whether or not they are well-formed."""

    def field(value: bytes) -> bytes:
        return len(value).to_bytes(2) + value

    value = NAMES[name]
    body = b"\x00\x04MQTT\x04\xc2\x00\x00" + field(value) + field(value) + field(value)
    with Simulation("mqtt") as simulation, capture_logs() as logs:
        simulation.send(b"\x10" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body)
        simulation.end()
    for line in logs:
        assert all(str(value).isprintable() for value in line.values()), line
        assert "PUB kaa" not in str(line)
