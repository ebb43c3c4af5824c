"""CoAP over a network that loses, repeats, delays and reorders datagrams: one effect and one answer a message."""

import asyncio
from collections import Counter

from kaa_ext import Extension, Request
from kaa_gateway.wire.coap import Message

from tests.support.coap import ACK, CON, CoapClient, coap_server
from tests.support.nats import NatsServer
from tests.support.proxy import DatagramProxy, Faults

# A separate response is given up after five transmissions, as RFC 7252 has it; two losses of it and two of its
# acknowledgement leave it one that arrives.
FAULTS = Faults(drop=0.2, drop_at_most=2, duplicate=0.1, reorder=0.1, hold=0.03, jitter=0.005)
MESSAGES = 200
SLOW_EVERY = 5
"""One in so many is answered after the piggyback delay, with a message of its own."""
CLIENTS = 4
ACK_TIMEOUT_S = 0.03
RETRANSMIT_MAX = 16
"""More than RFC 7252 has, so that no request is given up here because the machine is busy."""
ANSWER_TIMEOUT_S = 20.0


class Device:
    """A client that retransmits what is not acknowledged, and acknowledges what it is sent."""

    def __init__(self, client: CoapClient) -> None:
        self.client = client
        self.answers: dict[bytes, dict[int, Message]] = {}
        """By token and message ID: copies of one message are one."""
        self.acknowledged: set[int] = set()

    async def listen(self) -> None:
        while True:
            if not self.client.inbox:
                await asyncio.sleep(0.001)
                continue
            message = self.client.inbox.pop(0)
            if message.type == CON:
                self.client.acknowledge(message)
            elif message.type == ACK:
                self.acknowledged.add(message.message_id)
            if message.code:
                self.answers[message.token][message.message_id] = message

    async def ask(self, path: str, payload: bytes) -> dict[int, Message]:
        """Send a request until it is acknowledged, and wait for its answer: every distinct one that came."""
        request = self.client.request(path, payload)
        answers = self.answers[request.token] = {}
        timeout = ACK_TIMEOUT_S
        for _ in range(RETRANSMIT_MAX):
            self.client.send(request)
            await asyncio.sleep(timeout)
            if answers or request.message_id in self.acknowledged:
                break
            timeout = min(2 * timeout, 0.3)
        deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
        while not answers and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        return answers


async def test_every_message_has_one_effect_and_one_answer(nats_server: NatsServer) -> None:
    effects: Counter[bytes] = Counter()
    extension = Extension("dcx", nats_urls=[nats_server.url])

    @extension.handler("/fast")
    def fast(request: Request) -> bytes:
        effects[request.payload] += 1
        return b"answer to " + request.payload

    @extension.handler("/slow")
    async def slow(request: Request) -> bytes:
        effects[request.payload] += 1
        await asyncio.sleep(0.2)
        return b"answer to " + request.payload

    async with (
        extension,
        coap_server(nats_server.url, piggyback_delay=0.05, ack_timeout=0.05) as server,
        DatagramProxy(server.port, FAULTS, seed=7) as proxy,
    ):

        async def run_device(number: int) -> None:
            async with CoapClient(proxy.port) as client:
                device = Device(client)
                listening = asyncio.create_task(device.listen())
                for i in range(number, MESSAGES, CLIENTS):
                    payload = b"message %d" % i
                    kind = "fast" if i % SLOW_EVERY else "slow"
                    [answer] = (await device.ask(f"kp1/app_v1/dcx/token-{number}/{kind}", payload)).values()
                    assert (answer.code, answer.payload) == (0x44, b"answer to " + payload)
                await asyncio.sleep(0.5)
                assert all(len(answers) <= 1 for answers in device.answers.values())
                listening.cancel()

        await asyncio.gather(*(run_device(number) for number in range(CLIENTS)))
        assert effects == {b"message %d" % i: 1 for i in range(MESSAGES)}
        assert server.count("dropped", "coap_unacknowledged") == 0
        assert proxy.dropped > MESSAGES / 4
        assert server.count("dropped", "coap_duplicate") > 0
