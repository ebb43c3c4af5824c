"""A hostile peer of encrypted KP/UDP: forged, copied, changed and truncated datagrams, floods, and addresses of others.

Source: docs/kp-over-udp-secure.md, "Threats".
"""

import asyncio
import random
import secrets
from contextlib import ExitStack

import pytest
from kaa_bench.peers import kpudp_sealing as sealing
from kaa_gateway.wire.kpudp import Message, Type, encode

from tests.support.cluster import Cluster
from tests.support.esp import until
from tests.support.nats import NatsServer
from tests.support.secure_kpudp import (
    IDENTITY,
    KEY,
    OTHER_IDENTITY,
    OTHER_KEY,
    RawSecureDevice,
    SecureKpudpGateway,
    frames,
    ping,
    secure_client,
    secure_kpudp_gateway,
)

PATH = "kp1/app_v1/dcx/token/json"


def data(message_id: int, payload: bytes = b"21") -> bytes:
    return frames(Message(Type.CONFIRMED_DATA, message_id, path=PATH, payload=payload))


async def heard(server: SecureKpudpGateway, device: RawSecureDevice) -> None:
    """Wait until the server has read everything that was sent to it before: it answers in the order of arrival."""
    device.drain()
    await device.challenge()


async def test_a_copy_of_a_datagram_has_no_effect(shared_nats: NatsServer) -> None:
    async with Cluster(shared_nats.url, "dcx") as cluster, secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device, RawSecureDevice(server.port) as attacker:
            await device.prepare()
            session = device.session
            sent = [session.seal(data(number)) for number in range(1, 5)]  # all of them OPEN
            for datagram in sent:
                device.send(datagram)
            await cluster.next_requests(4)
            for datagram in (*sent, *sent):
                attacker.send(datagram)
            await heard(server, attacker)
            assert server.count("dropped", "kpudp_replayed") == 8
            assert server.count("dropped", "kpudp_duplicate") == 0


async def test_a_copy_of_resume_begins_nothing(shared_nats: NatsServer) -> None:
    async with Cluster(shared_nats.url, "dcx") as cluster, secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device, RawSecureDevice(server.port) as attacker:
            first = await device.open()
            resumes = []
            saved = first.saved()
            for number in (1, 2):
                device.session = sealing.Sealing.resume(saved, secrets.token_bytes(8))
                resumes.append(device.session.seal(data(number)))
                device.send(resumes[-1])
                saved = device.session.saved()
            await cluster.next_requests(2)
            for datagram in resumes:
                attacker.send(datagram)
            await heard(server, attacker)
            assert server.count("dropped", "kpudp_old_generation") == 1  # that of generation 1
            assert server.count("dropped", "kpudp_replayed") == 1  # that of generation 2
            # A forged one of a later generation, too.
            forged = bytearray(resumes[-1])
            forged[10:12] = (0xFFFF).to_bytes(2)
            attacker.send(bytes(forged))
            await heard(server, attacker)
            assert server.count("dropped", "kpudp_not_authentic") == 1
            device.drain()
            device.session.confirmed = True
            device.send(device.session.seal(ping(9)))
            while not any(each.message_id == 9 for each in device.read(await device.receive())):
                pass


async def test_a_copy_of_open_begins_no_second_session(shared_nats: NatsServer) -> None:
    """Not even when the first one has ended, though its cookie is still good."""
    async with Cluster(shared_nats.url, "dcx") as cluster, secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device:
            await device.prepare()
            opening = device.session.seal(data(1))
            device.send(opening)
            await cluster.next_requests(1)
            await device.open()  # another session of the same identity ends the first
            assert server.count("closed", "kpudp_session_replaced") == 1
            device.send(opening)
            assert (await device.receive())[1] == sealing.UNKNOWN_SESSION
            assert server.count("dropped", "kpudp_wrong_cookie") == 1
            assert server.secure.session_count() == 1
            device.send(device.session.seal(ping(2)))
            assert device.read(await device.receive())[0].message_id == 2


async def test_a_cookie_is_good_for_its_address_and_its_random_only(shared_nats: NatsServer) -> None:
    async with secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device, RawSecureDevice(server.port) as attacker:
            challenge = await device.challenge()
            attacker.send(sealing.Sealing.open(challenge, IDENTITY, KEY).seal(ping(1)))
            assert (await attacker.receive())[1] == sealing.UNKNOWN_SESSION
            for changed in (
                challenge._replace(client_random=bytes(16)),
                challenge._replace(connection_id=bytes(8)),
                challenge._replace(rest=bytes(4) + challenge.rest[4:]),
                challenge._replace(rest=challenge.rest[:4] + bytes(16)),
                challenge._replace(suite=2),
            ):
                device.send(sealing.Sealing.open(changed, IDENTITY, KEY).seal(ping(1)))
                assert (await device.receive())[1] == sealing.UNKNOWN_SESSION
            assert server.count("dropped", "kpudp_wrong_cookie") == 6
            assert server.secure.session_count() == 0


async def test_one_challenge_begins_the_session_of_one_identity(shared_nats: NatsServer) -> None:
    async with secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device:
            challenge = await device.challenge()
            device.session = sealing.Sealing.open(challenge, IDENTITY, KEY)
            device.send(device.session.seal(ping(1)))
            await device.receive()
            device.send(sealing.Sealing.open(challenge, OTHER_IDENTITY, OTHER_KEY).seal(ping(1)))
            await heard(server, device)
            assert server.secure.session_count() == 1
            assert (
                server.count("dropped", "kpudp_replayed") + server.count("dropped", "kpudp_not_authentic")
                == 1
            )


async def test_an_identity_with_the_key_of_another_gets_nothing(shared_nats: NatsServer) -> None:
    async with secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device:
            await device.prepare(OTHER_IDENTITY, KEY)
            device.send(device.session.seal(ping(1)))
            await heard(server, device)
            assert server.count("dropped", "kpudp_open_not_authentic") == 1


async def test_a_flood_of_hello_keeps_nothing_and_is_answered_with_fewer_bytes(
    shared_nats: NatsServer,
) -> None:
    async with (
        secure_kpudp_gateway(shared_nats.url, sessions=8) as server,
        secure_client(server.port) as device,
    ):
        await device.ping()
        with ExitStack() as stack:
            attackers = [stack.enter_context(RawSecureDevice(server.port)) for _ in range(20)]
            for attacker in attackers:
                for _ in range(50):
                    attacker.send(sealing.hello(secrets.token_bytes(16)))
            for attacker in attackers:
                await heard(server, attacker)
                assert attacker.received < attacker.sent
        assert server.secure.session_count() == 1
        await device.ping()
        assert device.handshakes == 1


async def test_no_forged_datagram_ends_or_moves_a_session(shared_nats: NatsServer) -> None:
    """The attacker knows the connection ID, and uses every type, from its own address."""
    generator = random.Random(19)
    async with secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device, RawSecureDevice(server.port) as attacker:
            session = await device.open()
            good = session.seal(ping(2))
            for kind in range(256):
                attacker.send(sealing.FIRST + bytes([kind]) + session.connection_id + generator.randbytes(60))
            for _ in range(200):
                changed = bytearray(good)
                changed[generator.randrange(1, len(good))] ^= 1 << generator.randrange(8)
                attacker.send(bytes(changed))
            for size in range(len(good)):
                attacker.send(good[:size])
            await heard(server, attacker)
            assert server.secure.session_count() == 1
            device.send(good)
            assert device.read(await device.receive())[0].message_id == 2
            assert attacker.received <= attacker.sent


async def test_plain_and_other_versions_are_refused_without_an_answer(shared_nats: NatsServer) -> None:
    async with secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device:
            session = await device.open()
            plain = encode(0, [Message(Type.CONFIRMED_DATA, 1, path=PATH, payload=b"21")])
            device.drain()
            device.send(plain)
            for version in range(16):
                if version != 2:
                    device.send(bytes([0xB0 | version]) + session.seal(ping(7))[1:])
            device.send(session.seal(ping(8)))
            assert device.read(await device.receive())[0].message_id == 8
            assert not device.drain()
            assert server.count("dropped", "kpudp_version") == 16


async def test_a_hello_without_a_suite_of_ours_is_dropped(shared_nats: NatsServer) -> None:
    async with secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device:
            for suites in (0, 0xFE):
                device.send(bytes([0xB2, sealing.HELLO, suites]) + bytes(45))
            await heard(server, device)
            assert server.count("dropped", "kpudp_suite") == 2
            # Suites that were changed on the way make other keys.
            challenge = await device.challenge()
            opening = bytearray(sealing.transcript(challenge, IDENTITY))
            opening[10] = 0x03
            device.send(
                sealing.Sealing(
                    challenge.connection_id,
                    sealing.session_secret(KEY, bytes(opening)),
                    0,
                    bytes(opening),
                    bytes(8),
                ).seal(ping(1))
            )
            assert (await device.receive())[1] == sealing.UNKNOWN_SESSION


async def test_an_attacker_who_sends_copies_first_takes_nothing_over(shared_nats: NatsServer) -> None:
    """He holds datagrams of the device back and sends them from his address: the answers for him are few and sealed."""
    async with Cluster(shared_nats.url, "dcx") as cluster, secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device, RawSecureDevice(server.port) as attacker:
            session = await device.open()
            for number in range(2, 12):
                attacker.send(session.seal(ping(number)))
            await heard(server, attacker)
            # A request of the device itself: its answer comes to the device, not to him.
            device.send(session.seal(frames(Message(Type.REQUEST, 20, path=PATH, payload=b"?"))))
            await cluster.answer((await cluster.next_requests(1))[0], b"x" * 1000)
            datagram = await device.receive()
            while len(datagram) < 1000:
                datagram = await device.receive()
            attacker.drain()
            assert attacker.received <= 3 * attacker.sent
            assert server.secure.session_count() == 1


async def test_a_device_heeds_no_forged_datagram_of_the_server(shared_nats: NatsServer) -> None:
    async with (
        Cluster(shared_nats.url, "dcx"),
        secure_kpudp_gateway(shared_nats.url) as server,
        secure_client(server.port) as device,
    ):
        await device.confirmed(PATH, b"1")
        session = device.session
        assert session is not None
        for datagram in (
            sealing.FIRST + bytes([sealing.UNKNOWN_SESSION]) + bytes(8) + bytes(4),
            sealing.FIRST + bytes([sealing.UNKNOWN_SESSION]) + session.connection_id + b"\xff\xff\xff\xff",
            sealing.FIRST + bytes([sealing.CHALLENGE]) + bytes(45),
            sealing.FIRST + bytes([sealing.SEALED]) + session.connection_id + bytes(40),
            b"\xb1\x00\x04\x10\x00",
        ):
            device.datagram_received(datagram, None)
        assert device.session is session
        # A well-made UNKNOWN SESSION begins a second session beside the first; nothing is lost.
        device.datagram_received(
            sealing.FIRST + bytes([sealing.UNKNOWN_SESSION]) + session.connection_id + bytes(4), None
        )
        assert device.session is session
        await until(lambda: device.handshakes == 2, "the second session")
        await device.confirmed(PATH, b"2")


async def test_failures_are_logged_at_a_limited_rate(
    shared_nats: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    async with secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device:
            for _ in range(60):
                await device.prepare(IDENTITY, OTHER_KEY)
                device.send(device.session.seal(ping(1)))
            await heard(server, device)
            assert server.count("dropped", "kpudp_open_not_authentic") == 60
        assert 0 < capsys.readouterr().out.count("handshake failed") <= 40
        assert KEY.hex() not in capsys.readouterr().out


async def test_random_bytes(shared_nats: NatsServer) -> None:
    generator = random.Random(20)
    async with secure_kpudp_gateway(shared_nats.url) as server:
        with RawSecureDevice(server.port) as device:
            session = await device.open()
            for _ in range(2000):
                device.send(b"\xb2" + generator.randbytes(generator.randrange(0, 1300)))
            await asyncio.sleep(0)
            while True:
                device.send(session.seal(ping(3)))
                try:
                    datagram = await device.receive(1.0)
                except TimeoutError:
                    continue  # the flood has filled a buffer
                if datagram[1] == sealing.SEALED:
                    break
            assert server.secure.session_count() == 1
