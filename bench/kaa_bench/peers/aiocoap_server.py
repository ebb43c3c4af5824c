"""`python -m kaa_bench.peers.aiocoap_server HOST PORT`: a CoAP server on aiocoap that takes what the bench sends.

One resource for all paths below kp1 reads the payload of a POST and answers 2.04. Everything else is aiocoap's default.
"""

import asyncio
import sys

from aiocoap import BAD_REQUEST, CHANGED, Context, Message
from aiocoap.resource import PathCapable, Resource, Site


class Taking(Resource, PathCapable):  # type: ignore[misc] # aiocoap has no types
    """A resource with all that lies below it."""

    async def render_post(self, request: Message) -> Message:
        """Take the payload and forget it."""
        return Message(code=CHANGED if request.payload else BAD_REQUEST)


async def main(host: str, port: int) -> None:
    """Serve until the process is ended."""
    site = Site()
    site.add_resource(["kp1"], Taking())
    await Context.create_server_context(site, bind=(host, port))
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
