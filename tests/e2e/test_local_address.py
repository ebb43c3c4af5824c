"""A gateway that is bound to all addresses answers from the one that was asked, over CoAP, DTLS and KP/UDP.

Source: RFC 7252 section 5.3.2 (the source of a response is the destination of its request); docs/kp-over-udp.md.
"""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from kaa_bench.peers.kpudp_client import KpudpClient
from kaa_ext import Extension
from kaa_ext.services import echo
from kaa_gateway.wire.coap import Message as CoapMessage
from kaa_gateway.wire.coap import decode as decode_coap
from kaa_gateway.wire.coap import encode as encode_coap
from kaa_gateway.wire.kpudp import Message, Type, decode, encode

from tests.support.encrypted import EncryptedGateway, run
from tests.support.nats import NatsServer, free_port

NewToken = Callable[[], str]

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.11.12.13")
KEY = b"an example key!!"
TIMEOUT_S = 10.0
CON, ACK = 0, 2
GET = 1
URI_PATH = 11


@pytest.fixture(scope="module")
def gateway(shared_nats: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EncryptedGateway]:
    keys: Path = tmp_path_factory.mktemp("keys") / "psk.yml"
    keys.write_text(f"keys: {{device-1: {KEY.hex()}}}\n")
    dtls = {"enabled": True, "port": free_port(), "psk-file": str(keys)}
    transports = {"bind-address": "0.0.0.0", "coap": {"dtls": dtls}}
    with EncryptedGateway(shared_nats.url, transports) as process:
        yield process
        assert "Traceback" not in process.log, process.log


@pytest.fixture(autouse=True)
async def echo_extension(shared_nats: NatsServer) -> AsyncIterator[None]:
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    async with extension:
        yield


@pytest.mark.parametrize("address", ADDRESSES)
async def test_clients_that_hear_only_the_address_that_they_asked(
    gateway: EncryptedGateway, new_token: NewToken, address: str
) -> None:
    path = f"kp1/app_v1/echo/{new_token()}/hello"
    plain = f"coap://{address}:{gateway.coap_port}/{path}"
    assert (await run("coap-client-notls", "-B", "20", "-m", "post", "-e", "hello", plain))[
        1
    ].strip() == "hello"
    encrypted = f"coaps://{address}:{gateway.coaps_port}/{path}"
    key = ("-u", "device-1", "-k", KEY.decode())
    command = ("coap-client-openssl", "-B", "20", "-m", "post", "-e", "hello", *key, encrypted)
    assert (await run(*command))[1].strip() == "hello"
    async with KpudpClient(gateway.udp_port, host=address) as client:
        assert (await client.request(path, b"hello")).payload == b"hello"


def test_one_socket_that_asks_at_several_addresses_has_a_peer_at_each(
    gateway: EncryptedGateway, new_token: NewToken
) -> None:
    """Message IDs are of an endpoint of ours (RFC 7252 section 4.4): the same one is no duplicate elsewhere."""
    path = f"kp1/app_v1/echo/{new_token()}/hello"
    options = tuple((URI_PATH, part) for part in (b".well-known", b"core"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.settimeout(TIMEOUT_S)
        for _ in range(2):
            for address in ADDRESSES:
                request = encode_coap(CoapMessage(CON, GET, 7, b"t", options, b""))
                device.sendto(request, (address, gateway.coap_port))
                answer, source = device.recvfrom(65536)
                assert source == (address, gateway.coap_port)
                assert (decode_coap(answer).type, decode_coap(answer).message_id) == (ACK, 7)
        for address in ADDRESSES:
            # An alias of one peer is unknown to the others.
            frame = Message(Type.PING, 1, alias=1, path=path, payload=bytes(8))
            device.sendto(encode(1, [frame]), (address, gateway.udp_port))
            answer, source = device.recvfrom(65536)
            assert source == (address, gateway.udp_port)
            assert decode(answer)[1][0].type == Type.PONG
