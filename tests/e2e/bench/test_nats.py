"""The NATS sink and the load of bare NATS requests on a real nats-server."""

import asyncio

import nats
from kaa_bench import packets
from kaa_bench.compare.instruments import LoadGenerator, Sink
from kaa_bench.connecting import LoadSpec
from kaa_gateway.bus import subjects
from kaa_gateway.wire import esp

from tests.support.nats import NatsServer
from tests.unit.bench.load.test_nats_sink import CLIENT_DATA


async def test_a_real_server_delivers_to_the_sink_in_its_process(nats_server: NatsServer) -> None:
    address = ("127.0.0.1", nats_server.port)
    subject = subjects.service("dcx", "esp", subjects.CLIENT_DATA)
    sink = await asyncio.to_thread(Sink, address, answers=True)
    client = await nats.connect(nats_server.url)
    try:
        reply = await client.request(subject, CLIENT_DATA, timeout=20)
        assert esp.decode_extension_data(reply.data).status_code == 200
        for _ in range(999):
            await client.publish(subject, CLIENT_DATA)
        await client.flush()
        # The reply comes over the sink's connection behind the messages before it.
        await client.request(subject, CLIENT_DATA, timeout=20)
        assert sink.received() == 1001
    finally:
        await client.close()
        await asyncio.to_thread(sink.close)


def test_a_bare_request_is_answered_by_the_sink() -> None:
    assert esp.decode_client_data(packets.client_data(3)).endpoint_id == packets.BENCH.token(3)
    with NatsServer() as nats:
        address = ("127.0.0.1", nats.port)
        with (
            Sink(address, answers=True) as sink,
            LoadGenerator(LoadSpec("nats", 3, window=4), address) as generator,
        ):
            result = generator.run(messages=200, rate=2000)
            assert sink.received() == 200
    assert (result.sent, result.acknowledged, result.errors) == (200, 200, {})
    assert result.latency is not None
    assert result.latency.total == 200
