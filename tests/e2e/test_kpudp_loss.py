"""KP over UDP on a bad network: every confirmable message has exactly one effect and one answer.

Source: docs/kp-over-udp.md, "Confirmable messages".
"""

import asyncio
from collections import Counter

from tests.support.cluster import Cluster, Request
from tests.support.esp import until
from tests.support.kpudp import client, kpudp_gateway
from tests.support.nats import NatsServer
from tests.support.proxy import DatagramProxy, Faults

DEVICES = 8
ROUNDS = 12
# Both sides give up after six transmissions, as the specification says; two losses of a message and two of its
# acknowledgement leave it two that arrive.
LOSSY = Faults(drop=0.2, drop_at_most=2, duplicate=0.1, reorder=0.1, jitter=0.01)


class Answering(Cluster):
    """Answers each request with its own payload, as an extension does."""

    async def serve(self, stop: asyncio.Event) -> None:
        served = 0
        while not stop.is_set():
            while served < len(self.requests):
                await self._serve(self.requests[served])
                served += 1
            await asyncio.sleep(0.005)

    async def _serve(self, request: Request) -> None:
        if request.fields["requestId"] is not None:
            await self.answer(request, request.fields["payload"])


async def test_one_effect_and_one_answer_at_twenty_percent_loss(shared_nats: NatsServer) -> None:
    answers: Counter[bytes] = Counter()
    stop = asyncio.Event()

    async with (
        Answering(shared_nats.url, "dcx", "cmx") as cluster,
        kpudp_gateway(shared_nats.url) as server,
        DatagramProxy(server.port, LOSSY, seed=7) as proxy,
    ):
        serving = asyncio.create_task(cluster.serve(stop))

        async def live(number: int) -> int:
            token = f"lossy-{number}"
            async with client(proxy.port) as device:
                for count in range(ROUNDS):
                    payload = f"{number}/{count}".encode()
                    await device.confirmed(f"kp1/app_v1/dcx/{token}/json", b"d" + payload)
                    response = await device.request(f"kp1/app_v1/cmx/{token}/json", b"r" + payload)
                    assert response == (200, "", b"r" + payload)
                    answers[b"r" + payload] += 1
                await device.ping()
                await until(lambda: token in server.presence.present, "the proof of the address")
                for count in range(ROUNDS):
                    await cluster.push(token, f"p{number}/{count}".encode())
                pushed = [(await asyncio.wait_for(device.pushes.get(), 30)).payload for _ in range(ROUNDS)]
                # Nothing comes twice, however often it was sent.
                await until(
                    lambda: server.count("dropped", "kpudp_outstanding_pushes") == 0, "no push dropped"
                )
                await asyncio.sleep(1)
                assert device.pushes.empty()
                assert sorted(pushed) == sorted(f"p{number}/{i}".encode() for i in range(ROUNDS))
                return device.retransmissions + device.duplicates

        repeated = sum(await asyncio.gather(*(live(number) for number in range(DEVICES))))
        await until(lambda: server.transport.unacknowledged() == 0, "everything to be acknowledged")
        assert proxy.dropped > 0
        assert repeated > 0
        assert server.count("dropped", "kpudp_duplicate") > 0
        assert server.pending.count() == 0
        stop.set()
        await serving

    expected = {f"{kind}{n}/{c}".encode() for kind in "dr" for n in range(DEVICES) for c in range(ROUNDS)}
    effects = Counter(request.fields["payload"] for request in cluster.requests)
    assert effects == dict.fromkeys(expected, 1)
    assert answers == {payload: 1 for payload in expected if payload.startswith(b"r")}
