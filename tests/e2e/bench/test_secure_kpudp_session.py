"""The simulator's device of encrypted KP/UDP, and the load generator's, against the server."""

import asyncio

import pytest
from kaa_bench import packets
from kaa_bench.connecting import LoadSpec, connect_load
from kaa_bench.sim.sessions import SessionError
from kaa_bench.sim.sessions.kpudp import KpudpSession

from tests.support.cluster import Cluster
from tests.support.nats import HOST, NatsServer
from tests.support.secure_kpudp import KEY, OTHER_KEY, secure_kpudp_gateway

DEVICES = 3
MESSAGES = 60
RUN_TIMEOUT_S = 60.0


async def test_a_simulated_device(shared_nats: NatsServer) -> None:
    pushes: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    async with Cluster(shared_nats.url, "dcx") as cluster, secure_kpudp_gateway(shared_nats.url) as server:
        session = KpudpSession(
            HOST, server.port, timeout=30.0, pushed=lambda path, payload: pushes.put_nowait((path, payload)),
            identity=("device-1", KEY.hex()),
        )  # fmt: skip
        await session.connect()
        await session.listen("kp1/app_v1/dcx/token")
        await session.send("kp1/app_v1/dcx/token/json", b"21")
        await cluster.next_requests(1)
        await cluster.push("token", b"config", resourcePath="/config/json")
        assert (await asyncio.wait_for(pushes.get(), 30))[1] == b"config"
        await session.close()


async def test_a_wrong_key(shared_nats: NatsServer) -> None:
    async with secure_kpudp_gateway(shared_nats.url) as server:
        session = KpudpSession(
            HOST, server.port, timeout=0.5, pushed=lambda path, payload: None,
            identity=("device-1", OTHER_KEY.hex()),
        )  # fmt: skip
        await session.connect()
        with pytest.raises(SessionError, match="not acknowledged"):
            await session.send("kp1/app_v1/dcx/token/json", b"21")
        await session.close()


async def test_the_load_generator(shared_nats: NatsServer) -> None:
    """Refused all the same: the gateway has no such application version; the sessions and datagrams are what counts."""
    async with secure_kpudp_gateway(shared_nats.url) as server:
        server.keys.context = {packets.identity(each): packets.shared_key(each) for each in range(DEVICES)}
        server.secure.check()
        spec = LoadSpec("kpudp", connections=DEVICES, window=8, carrier="sealed")
        load = await asyncio.to_thread(connect_load, spec, (HOST, server.port))
        result = await asyncio.wait_for(
            asyncio.to_thread(load.run, messages=MESSAGES, stall_timeout=RUN_TIMEOUT_S), 2 * RUN_TIMEOUT_S
        )
        assert sum(result.errors.values()) + result.acknowledged == MESSAGES
        assert not server.count("dropped", "kpudp_not_authentic")
        assert server.secure.session_count() == DEVICES
