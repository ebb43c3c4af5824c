"""KP over UDP end to end: a device, the server, and a NATS client in the place of the extensions.

Source: docs/kp-over-udp.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from kaa_bench.peers.kpudp_client import RefusedError
from kaa_gateway.wire.kpudp import Message, Reason, Type, decode, encode

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.kpudp import KpudpGateway, RawDevice, client, kpudp_gateway
from tests.support.nats import NatsServer

NewToken = Callable[[], str]


@pytest.fixture
async def server(shared_nats: NatsServer) -> AsyncIterator[KpudpGateway]:
    async with kpudp_gateway(shared_nats.url) as gateway:
        yield gateway


@pytest.fixture
async def cluster(shared_nats: NatsServer) -> AsyncIterator[Cluster]:
    async with Cluster(shared_nats.url, "dcx", "cmx") as cluster:
        yield cluster


async def answer_to(device: RawDevice, message_id: int) -> Message:
    """The first ACK or RESET of a message."""
    while True:
        for frame in decode(await device.receive())[1]:
            if frame.type in (Type.ACK, Type.RESET) and frame.message_id == message_id:
                return frame


async def test_confirmed_data_reaches_the_extension(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    async with client(server.port) as device:
        await device.confirmed(f"kp1/app_v1/dcx/{token}/json", b"payload")
    fields = (await cluster.request()).fields
    assert fields["endpointId"] == token
    assert fields["resourcePath"] == "/json"
    assert fields["requestId"] is None
    assert fields["payload"] == b"payload"
    assert fields["appVersionName"] == "app_v1"


async def test_digits_at_the_end_belong_to_the_path(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    async with client(server.port) as device:
        await device.confirmed(f"kp1/app_v1/dcx/{new_token()}/json/17")
    assert (await cluster.request()).fields["resourcePath"] == "/json/17"


async def test_data_several_in_a_datagram(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    path = f"kp1/app_v1/dcx/{new_token()}/json"
    async with client(server.port) as device:
        await device.confirmed(path, b"0")
        device.data(path, b"1", b"2", b"3")
        requests = await cluster.next_requests(4)
    assert [request.fields["payload"] for request in requests] == [b"0", b"1", b"2", b"3"]
    assert server.socket.datagrams_in < 5


async def test_an_alias_stands_for_its_path(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    paths = [f"kp1/app_v1/dcx/{new_token()}/json/{i}" for i in range(3)]
    with RawDevice(server.port) as device:
        for alias, path in enumerate(paths, 1):
            device.send(encode(1, [Message(Type.CONFIRMED_DATA, alias, alias=alias, path=path)]))
            await answer_to(device, alias)
        for alias in (3, 1, 2):
            device.send(encode(1, [Message(Type.DATA, 10 + alias, alias=alias)]))
        requests = await cluster.next_requests(3, after=3)
    assert [request.fields["resourcePath"] for request in requests] == ["/json/2", "/json/0", "/json/1"]


async def test_an_alias_keeps_its_path(server: KpudpGateway, cluster: Cluster, new_token: NewToken) -> None:
    path = f"kp1/app_v1/dcx/{new_token()}/json"
    with RawDevice(server.port) as device:
        device.send(encode(1, [Message(Type.CONFIRMED_DATA, 1, alias=1, path=path)]))
        assert (await answer_to(device, 1)).type == Type.ACK
        device.send(encode(1, [Message(Type.CONFIRMED_DATA, 2, alias=1, path=path + "x")]))
        assert await answer_to(device, 2) == Message(Type.RESET, 2, status=Reason.ALIAS_HAS_ANOTHER_PATH)
    assert len(cluster.requests) == 1


async def test_a_device_whose_alias_is_lost_gives_its_path_again(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    path = f"kp1/app_v1/dcx/{new_token()}/json"
    async with client(server.port) as device:
        await device.confirmed(path, b"1")
        await device.rebind()
        await device.confirmed(path, b"2")
        assert device.resets == [Reason.UNKNOWN_ALIAS]
    requests = await cluster.next_requests(2)
    assert [request.fields["payload"] for request in requests] == [b"1", b"2"]


async def test_request_and_response(server: KpudpGateway, cluster: Cluster, new_token: NewToken) -> None:
    async with client(server.port) as device:
        asking = asyncio.create_task(device.request(f"kp1/app_v1/dcx/{new_token()}/json", b"question"))
        request = await cluster.request()
        assert request.fields["requestId"] is not None
        assert request.fields["timeout"] == 30_000
        await cluster.answer(request, b"answer")
        assert await asking == (200, "", b"answer")
    await until(lambda: server.transport.unacknowledged() == 0, "the acknowledgement of the response")
    assert server.pending.count() == 0


async def test_a_request_that_takes_long_is_acknowledged_first(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    path = f"kp1/app_v1/dcx/{new_token()}/json"
    with RawDevice(server.port) as device:
        device.send(encode(9, [Message(Type.REQUEST, 77, path=path)]))
        request = await cluster.request()
        frames: list[Message] = []
        while Message(Type.ACK, 77) not in frames:
            frames += decode(await device.receive())[1]
        assert all(frame.type in (Type.ACK, Type.PING) for frame in frames)
        await cluster.answer(request, b"late")
        while not any(frame.type == Type.RESPONSE for frame in frames):
            frames += decode(await device.receive())[1]
        (response,) = [frame for frame in frames if frame.type == Type.RESPONSE]
        assert (response.request_id, response.status, response.payload) == (77, 200, b"late")


async def test_statuses_of_the_extension_come_through(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    async with client(server.port) as device:
        for status, phrase in ((200, None), (201, "Created"), (404, "No such key"), (500, "")):
            seen = len(cluster.requests)
            asking = asyncio.create_task(device.request(f"kp1/app_v1/dcx/{new_token()}/json"))
            (request,) = await cluster.next_requests(1, after=seen)
            await cluster.answer(request, None, statusCode=status, reasonPhrase=phrase)
            assert await asking == (status, phrase or "", b"")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("kp2/app_v1/dcx/tok/json", 404),
        ("kp1/app_v9/dcx/tok/json", 404),
        ("kp1/app_v1/nosuch/tok/json", 404),
        ("kp1/app_v1/dcx", 404),
        ("kp1/app_v1/dcx/refused/json", 401),
        ("kp1/app_v1/slow/tok/json", 503),
    ],
)
async def test_what_the_gateway_refuses(server: KpudpGateway, path: str, status: int) -> None:
    async with client(server.port) as device:
        assert (await device.request(path)).status == status
        with pytest.raises(RefusedError) as error:
            await device.confirmed(path)
        assert error.value.reason == status


async def test_a_request_that_nobody_answers_is_504(shared_nats: NatsServer, cluster: Cluster) -> None:
    async with kpudp_gateway(shared_nats.url, response_timeout=0.3) as server, client(server.port) as device:
        assert (await device.request("kp1/app_v1/dcx/tok/json")).status == 504
    assert server.pending.count() == 0


async def test_a_response_that_does_not_fit_is_413(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    async with client(server.port) as device:
        asking = asyncio.create_task(device.request(f"kp1/app_v1/dcx/{new_token()}/json"))
        await cluster.answer(await cluster.request(), b"x" * 1200)
        assert (await asking).status == 413


async def test_a_datagram_that_is_too_large_is_413(server: KpudpGateway) -> None:
    datagram = encode(3, [Message(Type.CONFIRMED_DATA, 5, path="kp1/app_v1/dcx/tok/json")]) + bytes(1200)
    with RawDevice(server.port) as device:
        device.send(datagram)
        assert decode(await device.receive()) == (3, [Message(Type.RESET, 5, status=413)])
    assert server.count("dropped", "kpudp_datagram_too_large") == 1


async def test_a_push_reaches_an_announced_device_once(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    async with client(server.port) as device:
        await device.ping(f"kp1/app_v1/cmx/{token}")
        await until(lambda: token in server.presence.present, "the proof of the address")
        await cluster.push(token, b"config", extensionInstanceName="cmx", resourcePath="/config/json/status")
        push = await asyncio.wait_for(device.pushes.get(), 10)
        assert push == (f"kp1/app_v1/cmx/{token}/config/json/status", 200, b"config")
        await until(lambda: server.transport.unacknowledged() == 0, "the acknowledgement of the push")
        assert device.pushes.empty()


async def test_a_push_goes_where_the_device_was_heard_last(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    async with client(server.port) as former, client(server.port) as latter:
        for device in (former, latter, former):
            await device.ping(f"kp1/app_v1/cmx/{token}")
        await until(lambda: server.transport.peers.counts() == (2, 0), "two proved peers")
        await latter.ping()
        await cluster.push(token, b"config")
        assert (await asyncio.wait_for(latter.pushes.get(), 10)).payload == b"config"
        assert former.pushes.empty()


async def test_nothing_is_pushed_to_an_address_that_is_not_proved(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    token = new_token()
    with RawDevice(server.port) as device:
        device.send(encode(1, [Message(Type.PING, 1, path=f"kp1/app_v1/cmx/{token}", payload=bytes(8))]))
        frames = decode(await device.receive())[1]
        assert [frame.type for frame in frames] == [Type.PONG, Type.PING]
        await cluster.push(token, b"config")
        await until(lambda: server.count("dropped", "no_session") == 1, "the push to be dropped")
        device.send(encode(1, [Message(Type.PONG, frames[1].message_id, payload=bytes(8))]))
        await until(lambda: server.count("dropped", "kpudp_wrong_proof") == 1, "the proof to be refused")
        assert token not in server.presence.present
        device.send(encode(1, [Message(Type.PONG, frames[1].message_id, payload=frames[1].payload)]))
        await until(lambda: token in server.presence.present, "the proof of the address")


async def answer_ping(device: RawDevice, epoch: int) -> None:
    """Answer the server's PING in an epoch."""
    while True:
        found, messages = decode(await device.receive())
        for message in messages:
            if (found, message.type) == (epoch, Type.PING):
                device.send(encode(epoch, [Message(Type.PONG, message.message_id, payload=message.payload)]))
                return


async def acknowledged(device: RawDevice, epoch: int, message: Message) -> None:
    """Send a message until there is nothing but its ACK in a datagram."""
    while True:
        device.send(encode(epoch, [message]))
        if decode(await device.receive()) == (epoch, [Message(Type.ACK, message.message_id)]):
            return


async def test_a_device_that_starts_again_is_not_taken_for_its_former_self(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    path = f"kp1/app_v1/dcx/{new_token()}/json"
    boot = Message(Type.CONFIRMED_DATA, 1, alias=1, path=path, payload=b"boot")
    with RawDevice(server.port) as device:
        for number, epoch in enumerate((5, 6)):
            device.send(encode(epoch, [boot]))
            await answer_ping(device, epoch)
            await acknowledged(device, epoch, boot)
            assert server.transport.peers.counts() == (1, 0)
            assert server.count("closed", "kpudp_new_epoch") == number
        device.send(encode(5, [boot._replace(message_id=2)]))
        await until(
            lambda: server.count("dropped", "kpudp_old_epoch") == 1, "the late datagram to be dropped"
        )
    assert len(cluster.requests) == 2


async def test_a_new_epoch_does_not_count_before_its_peer_has_proved_its_address(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    """Others can forge an epoch, but not read what is sent to the address."""
    token = new_token()
    path = f"kp1/app_v1/dcx/{token}/json"
    with RawDevice(server.port) as device:
        device.send(encode(5, [Message(Type.CONFIRMED_DATA, 1, alias=1, path=path)]))
        await answer_ping(device, 5)
        await until(lambda: token in server.presence.present, "the proof of the address")
        for epoch in range(6, 106):  # forged: the empty PING, and a message that names no endpoint
            device.send(encode(epoch, [Message(Type.PING, 0)]))
            device.send(encode(epoch, [Message(Type.CONFIRMED_DATA, 1, path="elsewhere")]))
        await acknowledged(device, 5, Message(Type.CONFIRMED_DATA, 2, alias=1))  # its alias is known
        await acknowledged(device, 5, Message(Type.CONFIRMED_DATA, 1, alias=1))  # and its first message
        await cluster.push(token, b"config")
        push_epoch = None
        while push_epoch is None:
            epoch, frames = decode(await device.receive())
            if any(frame.type == Type.PUSH for frame in frames):
                push_epoch = epoch
    assert push_epoch == 5
    assert len(cluster.requests) == 2
    assert server.count("dropped", "kpudp_old_epoch") == 0
    assert server.transport.peers.counts() == (1, 4)


async def test_a_peer_that_has_not_proved_its_epoch_is_served_and_outlives_the_other(
    shared_nats: NatsServer, cluster: Cluster
) -> None:
    path = "kp1/app_v1/dcx/tok/json"
    async with kpudp_gateway(shared_nats.url, peer_timeout=0.6) as server:
        with RawDevice(server.port) as device:
            device.send(encode(5, [Message(Type.DATA, 1, alias=1, path=path)]))
            await cluster.next_requests(1)
            for message_id in range(1, 20):
                device.send(encode(6, [Message(Type.DATA, message_id, alias=2, path=path)]))
                await asyncio.sleep(0.1)
                if server.count("closed", "kpudp_idle"):
                    break
            device.send(encode(6, [Message(Type.DATA, 100, alias=2)]))  # the alias is still known
            await cluster.next_requests(message_id + 2)
            assert server.transport.peers.counts() == (0, 1)
            assert server.count("dropped", "kpudp_unknown_alias") == 0
        await until(lambda: server.transport.peers.counts() == (0, 0), "the peer to be forgotten")


async def test_a_stranger_to_the_version_is_told_which_is_spoken(server: KpudpGateway) -> None:
    with RawDevice(server.port) as device:
        device.send(bytes.fromhex("b22a041000"))
        reset = Message(Type.RESET, 0, status=Reason.UNSUPPORTED_VERSION)
        assert decode(await device.receive()) == (0x2A, [reset])


@pytest.mark.parametrize(
    ("frame", "reason", "answer"),
    [
        ("02100011", "kpudp_alias", Reason.MALFORMED),
        ("421000010241", "kpudp_path", Reason.MALFORMED),
        ("051000100000c800", "kpudp_wrong_direction", Reason.MALFORMED),
        ("0f1000", "kpudp_unknown_type", Reason.UNKNOWN_TYPE),
        ("041000", "kpudp_unknown_peer", None),
        ("44100000", "kpudp_flags", None),
        ("0910", "kpudp_truncated_head", None),
        ("", "kpudp_empty", None),
    ],
)
async def test_malformed_frames_are_counted_and_answered_as_specified(
    server: KpudpGateway, frame: str, reason: str, answer: Reason | None
) -> None:
    with RawDevice(server.port) as device:
        device.send(bytes.fromhex("b12a" + frame))
        await until(lambda: server.count("dropped", reason) == 1, f"{reason} to be counted")
        device.send(encode(7, [Message(Type.PING, 1)]))
        answers = [decode(await device.receive())]
        if answer is not None:
            answers.append(decode(await device.receive()))
            assert (0x2A, [Message(Type.RESET, 0x1000, status=answer)]) in answers
        assert (7, [Message(Type.PONG, 1)]) in answers


async def test_a_frame_of_unknown_type_with_length_is_skipped(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    good = encode(1, [Message(Type.CONFIRMED_DATA, 2, path=f"kp1/app_v1/dcx/{new_token()}/json")])[2:]
    with RawDevice(server.port) as device:
        device.send(bytes.fromhex("b1018a000100020000") + good)
        await cluster.request()
    assert server.count("dropped", "kpudp_unknown_type") == 1


async def test_acknowledgements_of_a_tick_share_a_datagram(
    server: KpudpGateway, cluster: Cluster, new_token: NewToken
) -> None:
    path = f"kp1/app_v1/dcx/{new_token()}/json"
    with RawDevice(server.port) as device:
        frames = [Message(Type.CONFIRMED_DATA, i, alias=1, path=path if i == 0 else None) for i in range(20)]
        device.send(encode(1, frames))
        acknowledged: list[int] = []
        datagrams = 0
        while len(acknowledged) < 20:
            answers = decode(await device.receive())[1]
            acknowledged += [frame.message_id for frame in answers if frame.type == Type.ACK]
            datagrams += 1
    assert acknowledged == list(range(20))
    assert datagrams <= 3
