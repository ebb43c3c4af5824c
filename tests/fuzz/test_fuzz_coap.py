"""The CoAP codec and server on arbitrary, damaged, and nearly good datagrams."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kaa_ext import Extension
from kaa_ext.services import echo
from kaa_gateway.errors import ProtocolError
from kaa_gateway.wire.coap import FORMAT_REASONS, Message, decode, encode

from tests.support.coap import QUIET_S, URI_PATH, CoapClient, coap_server
from tests.support.esp import until
from tests.support.nats import NatsServer

EXAMPLES = 3000
PATH = "kp1/app_v1/echo/token"


whole = st.builds(
    Message,
    st.integers(0, 3),
    st.integers(1, 255),
    st.integers(0, 65535),
    st.binary(max_size=8),
    st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=300)), max_size=6).map(
        lambda found: tuple(sorted(found, key=lambda option: option[0]))
    ),
    st.binary(max_size=20),
).map(encode)

# Version 1, so that what follows is looked at.
arbitrary = st.binary(max_size=80) | st.builds(
    lambda first, rest: bytes([0x40 | first]) + rest, st.integers(0, 0x3F), st.binary(min_size=3, max_size=80)
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    datagram = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        datagram[draw(st.integers(0, len(datagram) - 1))] = draw(st.integers(0, 255))
    return bytes(datagram[: draw(st.integers(0, len(datagram)))])


def outcome(datagram: bytes) -> Message | str:
    """The message of a datagram, or the reason why it is none."""
    try:
        return decode(datagram)
    except ProtocolError as error:
        return error.reason


@settings(max_examples=EXAMPLES, deadline=None)
@given(arbitrary | damaged())
def test_any_datagram(datagram: bytes) -> None:
    message = outcome(datagram)
    if isinstance(message, str):
        assert message in FORMAT_REASONS[1:]
    else:
        # Every field lies inside the datagram, and says the same when it is written anew.
        size = len(message.token) + len(message.payload) + sum(len(value) for _, value in message.options)
        assert size <= len(datagram)
        assert decode(encode(message)) == message


@settings(max_examples=EXAMPLES // 3, deadline=None)
@given(whole)
def test_every_prefix_of_a_message(datagram: bytes) -> None:
    for size in range(len(datagram)):
        assert isinstance(outcome(datagram[:size]), Message) or outcome(datagram[:size]) in FORMAT_REASONS[1:]


# Requests that come close to being served: known options with any value, on paths that exist.
known_numbers = st.sampled_from([1, 3, 4, 6, 7, 12, 14, 15, 17, 23, 27, 28, 35, 39, 60, 252, 258, 292, 2049])
near_requests = st.builds(
    lambda kind, code, message_id, token, tail, options, payload: encode(
        Message(
            kind,
            code,
            message_id,
            token,
            tuple(
                sorted(
                    [(URI_PATH, level.encode()) for level in PATH.split("/")]
                    + [(URI_PATH, level) for level in tail]
                    + options,
                    key=lambda option: option[0],
                )
            ),
            payload,
        )
    ),
    st.integers(0, 3),
    st.sampled_from([0x01, 0x02, 0x03, 0x05, 0x04, 0x45]),
    st.integers(0, 50),
    st.binary(max_size=2),
    st.lists(st.binary(max_size=4), max_size=2),
    st.lists(st.tuples(known_numbers, st.binary(max_size=5)), max_size=4),
    st.binary(max_size=40) | st.sampled_from([bytes(16), bytes(64), bytes(1024)]),
)


async def test_the_server_survives_any_datagrams(shared_nats: NatsServer) -> None:
    """Its tables keep their bounds, unproved peers get no more than they may, and it answers at the end."""
    datagrams: list[bytes] = []

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(near_requests | damaged() | arbitrary)
    def collect(datagram: bytes) -> None:
        datagrams.append(datagram)

    await asyncio.to_thread(collect)
    extension = Extension("echo", nats_urls=[shared_nats.url])
    echo.register(extension)
    bounds = {"peers": 3, "exchanges": 100, "exchanges_per_peer": 60, "observers": 5, "block_memory": 10_000}
    settings_: dict[str, Any] = {"piggyback_delay": 0.02, "ack_timeout": 0.02, **bounds}
    async with extension, coap_server(shared_nats.url, **settings_) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(CoapClient(server.port)) for _ in range(4)]
        for number, datagram in enumerate(datagrams):
            clients[number % len(clients)].send(datagram)
            if number % 50 == 0:
                await server.put_forward(number % 7)
                tables = server.tables
                assert tables["peers"] <= 3
                assert tables["answered"] <= 100
                assert tables["observers"] <= 5
                assert tables["requests_bytes"] <= 10_000
                assert tables["responses_bytes"] <= 10_000
        await asyncio.sleep(QUIET_S)  # what was sent last is read
        await server.put_forward(100_000)  # more than a day, so that observers are forgotten too
        await until(lambda: not any(server.tables.values()), "all to be forgotten")
        async with CoapClient(server.port) as client:
            assert (await client.post(PATH, b"alive")).code in (0, 0x44)
        for used in clients:
            assert used.bytes_received <= 3 * used.bytes_sent
