"""Measures the CPU of codecs and of a publication to NATS in this process, beside fastavro and nats-py.

Values are checked before they are timed: all encoders make the same bytes.
"""

import asyncio
import io
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import fastavro
import nats
import structlog
import uvloop
from kaa_gateway.bus.connector import Connector, TlsOptions
from kaa_gateway.bus.link import Link
from kaa_gateway.wire import esp
from kaa_gateway.wire import nats as nats_wire

from kaa_bench import packets
from kaa_bench.compare.figures import Figure, Probe, Scale, Subject
from kaa_bench.compare.servers import Servers
from kaa_bench.errors import BenchError
from kaa_bench.load import codecs
from kaa_bench.peers.schemas import CLIENT_DATA, EXTENSION_DATA

PYTHON_SHARE = 10
"""The factor by which code in Python gets fewer operations."""
TICK = 64
"""Publications of our link in a tick."""
PENDING_MAX = 1 << 20
"""Unconfirmed bytes of the link; beyond them, publishing waits as a connection of the gateway would."""
PING_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
SUBJECT = "bench.publish"
NANOSECONDS_PER_MICROSECOND = 1000


def _timed(count: int, work: Callable[[int], object]) -> Figure:
    """Return the CPU microseconds of an operation; `work` does a number of them."""
    work(min(count, 1000))
    started = time.process_time_ns()
    work(count)
    return Figure((time.process_time_ns() - started) / count / NANOSECONDS_PER_MICROSECOND)


def _repeated(operation: Callable[[], object]) -> Callable[[int], None]:
    def work(count: int) -> None:
        for _ in range(count):
            operation()

    return work


# ---------------------------------------------------------------- ClientData


def _native_encode(count: int) -> object:
    return codecs.encode_client_data(
        packets.CORRELATION_ID, packets.APP_VERSION, packets.BENCH.token(1), "/json", packets.PAYLOAD, count
    )


def _python_encode() -> bytes:
    return packets.client_data(1)


def _fastavro_encode() -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out,
        CLIENT_DATA,
        {
            "correlationId": packets.CORRELATION_ID,
            "timestamp": packets.TIMESTAMP,
            "timeout": 0,
            "appVersionName": packets.APP_VERSION,
            "endpointId": packets.BENCH.token(1),
            "resourcePath": "/json",
            "requestId": int(packets.REQUEST_ID),
            "payload": packets.PAYLOAD,
            "configName": None,
        },
    )
    return out.getvalue()


def _encoders(_: Servers, scale: Scale) -> list[Subject]:
    if _python_encode() != _fastavro_encode():
        raise BenchError("fastavro and the gateway do not encode the same ClientData")
    few = scale.operations // PYTHON_SHARE
    return [
        Subject("gateway, native", partial(_timed, scale.operations, _native_encode)),
        Subject("gateway, from Python", partial(_timed, few, _repeated(_python_encode))),
        Subject("fastavro", partial(_timed, few, _repeated(_fastavro_encode))),
    ]


# ---------------------------------------------------------------- ExtensionData


def _decoders(_: Servers, scale: Scale) -> list[Subject]:
    datum = packets.extension_data(1)
    few = scale.operations // PYTHON_SHARE

    def with_fastavro() -> Any:
        return fastavro.schemaless_reader(io.BytesIO(datum), EXTENSION_DATA, None)

    if with_fastavro()["payload"] != esp.decode_extension_data(datum).payload:
        raise BenchError("fastavro and the gateway do not decode the same ExtensionData")
    native = partial(codecs.decode_extension_data, datum)
    return [
        Subject("gateway, native", partial(_timed, scale.operations, native)),
        Subject(
            "gateway, from Python", partial(_timed, few, _repeated(lambda: esp.decode_extension_data(datum)))
        ),
        Subject("fastavro", partial(_timed, few, _repeated(with_fastavro))),
    ]


# ---------------------------------------------------------------- publishing


def _publishers(servers: Servers, scale: Scale) -> list[Subject]:
    host, port = servers.other_nats.address
    url = f"nats://{host}:{port}"
    few = scale.operations // PYTHON_SHARE
    return [
        Subject("gateway's link", lambda: _run(_publish_with_link(url, scale.operations))),
        Subject("nats-py", lambda: _run(_publish_with_nats_py(url, few))),
    ]


def _run(publishing: Coroutine[Any, Any, Figure]) -> Figure:
    return uvloop.run(publishing)


async def _publish_with_link(url: str, count: int) -> Figure:
    """Publish with our link, and wait for the confirmation of NATS."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    loop = asyncio.get_running_loop()
    lost: list[str] = []
    link = Link(loop, (), PENDING_MAX, PING_TIMEOUT_S, lost.append)
    connector = Connector(link, (url,), name="bench", tls=TlsOptions(), credentials=None)
    connector.start()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            while not link.ready:
                await asyncio.sleep(0.01)
        head = nats_wire.encode_publish_head(SUBJECT)
        started = time.process_time_ns()
        for first in range(0, count, TICK):
            codecs.publish(link, head, packets.client_data(1), min(TICK, count - first))
            await asyncio.sleep(0)
            while link.full:
                await asyncio.sleep(0.001)
        while link.backlog and not lost:
            await asyncio.sleep(0.001)
        used = time.process_time_ns() - started
    except TimeoutError:
        raise BenchError("the link did not connect to NATS") from None
    finally:
        await connector.stop()
    if lost:
        raise BenchError(f"the link lost its connection: {lost[0]}")
    return Figure(used / count / NANOSECONDS_PER_MICROSECOND)


async def _publish_with_nats_py(url: str, count: int) -> Figure:
    connected = await nats.connect(url)
    datum = packets.client_data(1)
    try:
        started = time.process_time_ns()
        for _ in range(count):
            await connected.publish(SUBJECT, datum)
        await connected.flush()
        used = time.process_time_ns() - started
    finally:
        await connected.close()
    return Figure(used / count / NANOSECONDS_PER_MICROSECOND)


ENCODE = Probe("encode", "ClientData, encode", "us CPU", _encoders)
DECODE = Probe("decode", "ExtensionData, decode", "us CPU", _decoders)
PUBLISH = Probe("publish", "NATS publish", "us CPU", _publishers)
