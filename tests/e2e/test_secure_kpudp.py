"""Encrypted KP/UDP on a real NATS: sessions, resumption, and devices that move."""

import asyncio

import pytest
from kaa_bench.peers import kpudp_sealing as sealing
from kaa_bench.peers.kpudp_client import UnansweredError
from kaa_gateway.wire.kpudp import Message, Type

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.nats import NatsServer
from tests.support.secure_kpudp import (
    KEY,
    OTHER_IDENTITY,
    OTHER_KEY,
    RawSecureDevice,
    frames,
    ping,
    secure_client,
    secure_kpudp_gateway,
)

PATH = "kp1/app_v1/dcx/token/json"
SILENCE_S = 0.3


async def test_data_request_and_push(shared_nats: NatsServer) -> None:
    async with Cluster(shared_nats.url, "dcx") as cluster, secure_kpudp_gateway(shared_nats.url) as server:
        async with secure_client(server.port) as device:
            await device.confirmed(PATH, b"21")
            await device.confirmed(PATH, b"22")
            asking = asyncio.create_task(device.request(PATH, b"?"))
            requests = await cluster.next_requests(3)
            await cluster.answer(requests[-1], b"answer")
            assert (await asking).payload == b"answer"
            # The cookie has proved its address: it gets pushes without more.
            await cluster.push("token", b"config", resourcePath="/config/json")
            push = await asyncio.wait_for(device.pushes.get(), 30)
            assert push.payload == b"config"
            assert device.handshakes == 1
        assert [request.fields["payload"] for request in requests] == [b"21", b"22", b"?"]
        assert not server.count("dropped", "kpudp_amplification")


async def test_the_client_is_named_after_its_identity(shared_nats: NatsServer) -> None:
    async with (
        Cluster(shared_nats.url, "dcx"),
        secure_kpudp_gateway(shared_nats.url) as server,
        secure_client(server.port) as device,
    ):
        await device.confirmed(PATH)
        slots = (server.sessions.at(slot) for slot in range(server.sessions.slot_count()))
        (described,) = [session.describe() for session in slots if session is not None]
        assert "psk:device-1" in described.values()
        assert str(described["peer"]).startswith("127.0.0.1")


async def test_a_wrong_key_and_an_unknown_identity_are_met_with_the_same_silence(
    shared_nats: NatsServer,
) -> None:
    async with secure_kpudp_gateway(shared_nats.url) as server:
        for identity, key in ((b"device-1", OTHER_KEY), (b"nobody", KEY)):
            with RawSecureDevice(server.port) as device:
                await device.prepare(identity, key)
                device.send(device.session.seal(ping(1)))
                with pytest.raises(TimeoutError):
                    await device.receive(SILENCE_S)
        assert server.count("dropped", "kpudp_open_not_authentic") == 2
        assert server.secure.session_count() == 0


async def test_a_client_with_a_wrong_key_gives_up(shared_nats: NatsServer) -> None:
    async with (
        secure_kpudp_gateway(shared_nats.url) as server,
        secure_client(server.port, key=OTHER_KEY) as device,
    ):
        device._ack_timeout = 0.02
        with pytest.raises(UnansweredError):
            await device.ping()


async def test_a_device_that_moves_keeps_its_session(shared_nats: NatsServer) -> None:
    async with (
        Cluster(shared_nats.url, "dcx") as cluster,
        secure_kpudp_gateway(shared_nats.url) as server,
        secure_client(server.port) as device,
    ):
        await device.confirmed(PATH, b"1")
        for move in range(3):
            await device.rebind()
            await device.confirmed(PATH, b"2")  # by its alias
            await until(lambda: device.moves == move + 1, "the check of the path")  # noqa: B023
        assert device.handshakes == 1
        assert not device.resets
        await cluster.next_requests(4)
        await device.ping()
        await cluster.push("token", b"config", resourcePath="/config/json")
        assert (await asyncio.wait_for(device.pushes.get(), 30)).payload == b"config"
        assert server.secure.session_count() == 1


async def test_a_new_address_gets_no_more_than_three_times_its_bytes_before_its_proof(
    shared_nats: NatsServer,
) -> None:
    async with Cluster(shared_nats.url, "dcx") as cluster, secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as old, RawSecureDevice(server.port) as new:
            session = await old.open()
            new.session = session
            request = frames(Message(Type.REQUEST, 2, path=PATH, payload=b"?"))
            new.send(session.seal(request))
            await cluster.answer((await cluster.next_requests(1))[0], b"x" * 1000)
            check = await new.receive()
            assert check[1] == sealing.PATH_CHECK
            # The large response goes to the address that is proved, again and again.
            answer = await old.receive()
            while old.read(answer)[0].type != Type.RESPONSE:
                answer = await old.receive()
            assert len(answer) > 1000
            new.drain()
            assert new.received <= 3 * new.sent
            data = session.unseal(check)
            assert data is not None
            new.send(session.seal(data, sealing.PATH_PROOF))
            answer = await new.receive()
            while len(answer) < 1000:
                answer = await new.receive()
            assert new.read(answer)[0].type == Type.RESPONSE


async def test_a_wrong_proof_moves_nothing(shared_nats: NatsServer) -> None:
    async with secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as old, RawSecureDevice(server.port) as new:
            session = new.session = await old.open()
            new.send(session.seal(ping(2)))
            assert (await new.receive())[1] == sealing.PATH_CHECK
            new.send(session.seal(bytes(8), sealing.PATH_PROOF))
            await until(lambda: server.count("dropped", "kpudp_wrong_path_proof") == 1, "the wrong proof")
            # The next datagram from the old address says where the device is.
            old.send(session.seal(ping(3)))
            assert old.read(await old.receive())[0].message_id == 3


async def test_a_restarted_device_resumes_without_a_handshake(shared_nats: NatsServer) -> None:
    async with Cluster(shared_nats.url, "dcx") as cluster, secure_kpudp_gateway(shared_nats.url) as server:
        async with secure_client(server.port) as device:
            await device.confirmed(PATH, b"1")
            saved = device.saved()
        for number in range(1, 4):
            async with secure_client(server.port, saved=saved) as device:
                await device.confirmed(PATH, b"2")
                assert device.handshakes == 0
                assert device.retransmissions == 0
                saved = device.saved()
                assert saved.generation == number
        await cluster.next_requests(4)
        assert server.secure.session_count() == 1


async def test_a_used_generation_is_refused(shared_nats: NatsServer) -> None:
    async with Cluster(shared_nats.url, "dcx"), secure_kpudp_gateway(shared_nats.url) as server:
        async with secure_client(server.port) as device:
            await device.confirmed(PATH, b"1")
            saved = device.saved()
        async with secure_client(server.port, saved=saved) as device:
            await device.confirmed(PATH, b"2")
        async with secure_client(server.port, saved=saved) as device:
            await device.confirmed(PATH, b"3")
            assert device.handshakes == 1
        assert server.count("dropped", "kpudp_old_generation") > 0


async def test_a_new_session_of_an_identity_ends_the_former(shared_nats: NatsServer) -> None:
    async with (
        Cluster(shared_nats.url, "dcx"),
        secure_kpudp_gateway(shared_nats.url) as server,
        secure_client(server.port) as first,
        secure_client(server.port) as second,
    ):
        await first.confirmed(PATH, b"1")
        await second.confirmed(PATH, b"2")
        assert server.secure.session_count() == 1
        assert server.count("closed", "kpudp_session_replaced") == 1


async def test_a_forgotten_session_is_begun_anew(shared_nats: NatsServer) -> None:
    async with Cluster(shared_nats.url, "dcx") as cluster, secure_kpudp_gateway(shared_nats.url) as server:
        async with secure_client(server.port) as device:
            await device.confirmed(PATH, b"1")
            server.keys.context = {b"device-1": KEY, b"other": OTHER_KEY}  # a changed file that keeps its key
            await until(lambda: server.secure.check() is not None, "a check")
            assert server.secure.session_count() == 1
            server.keys.context = {OTHER_IDENTITY: OTHER_KEY}
            await until(lambda: server.secure.session_count() == 0, "the end of the session")
            assert server.count("closed", "kpudp_key_removed") == 1
            server.keys.context = {b"device-1": KEY}
            server.secure.check()
            await device.confirmed(PATH, b"2")
            assert device.handshakes == 2
        await cluster.next_requests(2)


async def test_a_silent_session_ends_and_a_full_table_drops_the_longest_silent(
    shared_nats: NatsServer,
) -> None:
    async with Cluster(shared_nats.url, "dcx"):
        async with secure_kpudp_gateway(shared_nats.url, session_timeout=0.2) as server:
            async with secure_client(server.port) as device:
                await device.confirmed(PATH, b"1")
            await until(lambda: server.secure.session_count() == 0, "the end of the session")
            assert server.count("closed", "kpudp_session_timeout") == 1
        async with secure_kpudp_gateway(shared_nats.url, sessions=2) as server:
            server.keys.context = {b"a": KEY, b"b": KEY, b"c": KEY}
            await until(lambda: server.secure.check() is not None, "a check")
            for identity in (b"a", b"b"):
                async with secure_client(server.port, identity=identity) as device:
                    await device.confirmed(PATH, b"1")
            assert server.secure.session_count() == 2


async def test_unconfirmed_data_waits_for_the_session(shared_nats: NatsServer) -> None:
    async with (
        Cluster(shared_nats.url, "dcx") as cluster,
        secure_kpudp_gateway(shared_nats.url) as server,
        secure_client(server.port) as device,
    ):
        device.data(PATH, b"1", b"2")
        requests = await cluster.next_requests(2)
        assert [request.fields["payload"] for request in requests] == [b"1", b"2"]
