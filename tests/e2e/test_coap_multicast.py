"""Discovery by multicast (RFC 7252 section 8), and IPv4 and IPv6 on one listener, on the loopback interface."""

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from kaa_ext import Extension
from kaa_ext.services import echo
from kaa_gateway.wire.coap import Message, decode, encode

from tests.support.encrypted import run
from tests.support.gateway import GatewayProcess
from tests.support.nats import HOST, NatsServer

CON, NON, GET, POST = 0, 1, 1, 2
GROUPS = ["224.0.1.187", "ff02::fd", "ff05::fd"]
TIMEOUT_S = 30.0
QUIET_S = 1.0
WELL_KNOWN = ((11, b".well-known"), (11, b"core"))


@pytest.fixture(scope="module")
def gateway(shared_nats: NatsServer) -> Iterator[GatewayProcess]:
    coap = {"multicast-interfaces": ["lo"], "multicast-leisure": 0.2}
    changes = {"kaa": {"kpc": {"workers": 2, "transports": {"bind-address": "*", "coap": coap}}}}
    with GatewayProcess(shared_nats.url, changes) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log, gateway.log


@pytest.fixture
async def echo_extension(shared_nats: NatsServer) -> AsyncIterator[None]:
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    async with extension:
        yield


class Client:
    """A socket that sends to a group over the loopback interface."""

    def __init__(self, group: str, port: int) -> None:
        index = socket.if_nametoindex("lo")
        self._socket = socket.socket(socket.AF_INET6 if ":" in group else socket.AF_INET, socket.SOCK_DGRAM)
        self._address: tuple[str, int] | tuple[str, int, int, int]
        if ":" in group:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            self._socket.bind(("::1", 0))
            self._address = (group, port, 0, index)
        else:
            interface = struct.pack("4s4si", bytes(4), bytes(4), index)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            self._socket.bind((HOST, 0))
            self._address = (group, port)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, message: Message) -> int:
        datagram = encode(message)
        try:
            self._socket.sendto(datagram, self._address)
        except OSError as error:
            if error.errno != errno.ENETUNREACH:
                raise
            pytest.skip("the loopback interface has no route for multicast")
        return len(datagram)

    async def receive(self, timeout_s: float = TIMEOUT_S) -> tuple[Message, str, int]:
        """Return a message, the address it comes from, and its size."""
        self._socket.settimeout(timeout_s)
        datagram, source = await asyncio.to_thread(self._socket.recvfrom, 65_536)
        return decode(datagram), source[0], len(datagram)


@pytest.mark.parametrize("group", GROUPS)
async def test_one_worker_answers_a_group(gateway: GatewayProcess, group: str) -> None:
    with Client(group, gateway.coap_port) as client:
        size = client.send(Message(NON, GET, 7, b"t", (*WELL_KNOWN, (15, b"rt=kaa.dcx"))))
        response, source, response_size = await client.receive()
        assert (response.type, response.code, response.token) == (NON, 0x45, b"t")
        assert response.payload.startswith(b"</kp1/app_v1/dcx"[: len(response.payload)])
        assert source == ("::1" if ":" in group else HOST)
        assert response_size <= 3 * size
        with pytest.raises(TimeoutError):
            await client.receive(QUIET_S)


@pytest.mark.parametrize(
    "message",
    [
        Message(CON, GET, 8, b"t", WELL_KNOWN),
        Message(NON, GET, 8, b"t", (*WELL_KNOWN, (15, b"rt=kaa.nothing"))),
        Message(NON, GET, 8, b"t", (*WELL_KNOWN, (17, b"2"))),
        Message(NON, GET, 8, b"t", ((9, b"x"), *WELL_KNOWN)),
        Message(NON, GET, 8, b"t", ((11, b"other"),)),
        Message(NON, POST, 8, b"t", tuple((11, part) for part in (b"kp1", b"app_v1", b"echo", b"t", b"x"))),
        Message(CON, 0, 8),
    ],
    ids=["confirmable", "no match", "format", "option", "path", "request", "ping"],
)
async def test_nothing_else_is_answered(gateway: GatewayProcess, message: Message) -> None:
    """Section 8.1 and 8.2: no Reset, no acknowledgement, no error, and no request to an extension."""
    with Client(GROUPS[0], gateway.coap_port) as client:
        client.send(message)
        with pytest.raises(TimeoutError):
            await client.receive(QUIET_S)


@pytest.mark.parametrize("host", [HOST, "[::1]"])
async def test_one_listener_takes_both_families(
    gateway: GatewayProcess, echo_extension: None, host: str
) -> None:
    uri = f"coap://{host}:{gateway.coap_port}/kp1/app_v1/echo/both/json"
    assert await run("coap-client-notls", "-B", "30", "-m", "post", "-e", "hello", uri) == (0, "hello\n")
    curl = f"http://{host}:{gateway.http_port}/kp1/app_v1/echo/both/json"
    assert await run("curl", "--silent", "--max-time", "30", "--data", "hello", curl) == (0, "hello")
