"""A CoAP server on aiocoap for the messages of the bench.

`python -m kaa_bench.peers.aiocoap_server HOST PORT` starts it. A resource for all paths below kp1 reads the payload of
a POST and answers 2.04. All else is aiocoap's default.
"""

import asyncio
import sys

from aiocoap import BAD_REQUEST, CHANGED, Context, Message
from aiocoap.resource import PathCapable, Resource, Site


class Taking(Resource, PathCapable):  # type: ignore[misc] # aiocoap has no types
    """A resource for a path and all paths below it."""

    async def render_post(self, request: Message) -> Message:
        """Read the payload and discard it."""
        return Message(code=CHANGED if request.payload else BAD_REQUEST)


async def main(host: str, port: int) -> None:
    """Serve until the process ends."""
    site = Site()
    site.add_resource(["kp1"], Taking())
    await Context.create_server_context(site, bind=(host, port))
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
