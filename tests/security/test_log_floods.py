"""A flood of what is malformed cannot fill a disk: of each kind of log line there are so many in a period, and no more.

The clock is the machine's, so the bound counts the periods that the flood took.
"""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from kaa_gateway.logs import LIMIT, PERIOD

from tests.support.encrypted import EncryptedGateway, Pki
from tests.support.esp import until
from tests.support.nats import HOST, NatsServer, free_port

FLOOD = 200
"""Far more than there may be lines of a kind, unless the flood takes minutes."""
GARBAGE = bytes(range(255, 220, -1))
END_TIMEOUT_S = 60.0

Flood = Callable[[EncryptedGateway], None]


@pytest.fixture(scope="module")
def encrypted(
    shared_nats: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EncryptedGateway]:
    pki = Pki(tmp_path_factory.mktemp("pki"))
    transports = {
        "mqtt": {"tls": pki.section(), "websocket": {"enabled": True, "port": free_port()}},
        "http": {"tls": pki.section()},
        "coap": {"dtls": pki.section()},
    }
    with EncryptedGateway(shared_nats.url, transports) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


def connections(port: int, data: bytes) -> None:
    """One after the other, each of which sends this and is closed by the gateway."""
    for _ in range(FLOOD):
        with socket.create_connection((HOST, port), timeout=END_TIMEOUT_S) as connection:
            connection.sendall(data)
            try:
                while connection.recv(65_536):
                    pass
            except ConnectionResetError:
                pass


def datagrams(port: int, data: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(FLOOD):
            sender.sendto(data, (HOST, port))


def happened(gateway: EncryptedGateway) -> float:
    """Whatever was closed, refused or dropped so far."""
    return sum(value for name, value in gateway.metrics().items() if name[0] == "events")


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(lambda gateway: connections(gateway.mqtt_port, GARBAGE), id="MQTT"),
        pytest.param(lambda gateway: connections(gateway.ws_port, GARBAGE + b"\r\n\r\n"), id="WebSocket"),
        pytest.param(lambda gateway: connections(gateway.http_port, GARBAGE + b"\r\n\r\n"), id="HTTP"),
        pytest.param(lambda gateway: connections(gateway.mqtts_port, GARBAGE), id="MQTT over TLS"),
        pytest.param(lambda gateway: connections(gateway.https_port, b"\x16" + GARBAGE), id="HTTP over TLS"),
        pytest.param(lambda gateway: datagrams(gateway.coap_port, GARBAGE), id="CoAP"),
        pytest.param(lambda gateway: datagrams(gateway.coaps_port, GARBAGE), id="CoAP over DTLS"),
        pytest.param(lambda gateway: datagrams(gateway.udp_port, GARBAGE), id="KP over UDP"),
    ],
)
async def test_a_flood_of_what_is_malformed_writes_only_so_much(
    encrypted: EncryptedGateway, flood: Flood
) -> None:
    began = time.monotonic()
    before, logged = happened(encrypted), len(encrypted.log)
    flood(encrypted)
    await until(lambda: happened(encrypted) >= before + FLOOD, "the flood to be counted", END_TIMEOUT_S)
    lines = [json.loads(line) for line in encrypted.log[logged:].splitlines()]
    kinds = Counter((line["event"], line.get("reason")) for line in lines)
    periods = (time.monotonic() - began) // PERIOD + 2
    assert all(count <= LIMIT * periods for count in kinds.values()), kinds
