"""The gateway's work for HTTP on aiohttp, fastavro and nats-py.

`python -m kaa_bench.peers.aiohttp_server HOST PORT NATS_URL` starts it.

POST /kp1/<application version>/<extension instance>/<token>/<path> becomes ClientData, and the extension's answer the
response. Answers are matched by correlation ID in a dict, since 4/ESP has one reply subject for all of them.
"""

import asyncio
import io
import sys
import time
import uuid

import fastavro
import nats
import uvloop
from aiohttp import web
from kaa_gateway.bus import subjects
from nats.aio.client import Client
from nats.aio.msg import Msg

from kaa_bench.peers.schemas import CLIENT_DATA, EXTENSION_DATA

ANSWER_TIMEOUT_S = 30.0
REPLY_TO = subjects.replica("bench-aiohttp", "esp", subjects.EXTENSION_DATA)


class Forwarding:
    """The requests that wait for answers."""

    def __init__(self, connected: Client) -> None:
        self._nats = connected
        self._waiting: dict[str, asyncio.Future[int]] = {}

    async def handle(self, request: web.Request) -> web.Response:
        """Handle a POST."""
        correlation_id = str(uuid.uuid4())
        info = request.match_info
        datum = io.BytesIO()
        fastavro.schemaless_writer(
            datum,
            CLIENT_DATA,
            {
                "correlationId": correlation_id,
                "timestamp": int(time.time() * 1000),
                "timeout": 0,
                "appVersionName": info["version"],
                "endpointId": info["token"],
                "resourcePath": f"/{info['path']}",
                "requestId": 1,
                "payload": await request.read(),
                "configName": None,
            },
        )
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = answer
        try:
            subject = subjects.service(info["extension"], "esp", subjects.CLIENT_DATA)
            await self._nats.publish(subject, datum.getvalue(), REPLY_TO)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return web.Response(status=await answer)
        finally:
            del self._waiting[correlation_id]

    async def answered(self, message: Msg) -> None:
        """Handle an ExtensionData."""
        answer = fastavro.schemaless_reader(io.BytesIO(message.data), EXTENSION_DATA, None)
        assert isinstance(answer, dict)
        waiting = self._waiting.get(str(answer["correlationId"]))
        if waiting is not None and not waiting.done():
            waiting.set_result(int(answer["statusCode"]))


async def main(host: str, port: int, nats_url: str) -> None:
    """Serve until the process ends."""
    connected = await nats.connect(nats_url)
    forwarding = Forwarding(connected)
    await connected.subscribe(REPLY_TO, cb=forwarding.answered)
    application = web.Application()
    application.router.add_post("/kp1/{version}/{extension}/{token}/{path:.*}", forwarding.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
