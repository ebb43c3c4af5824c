"""The sessions of a worker that stops: it offers them to other workers, which claim them like a CONNECT."""

import asyncio
from collections import deque

import structlog

from kaa_gateway.fleet.directory cimport SessionDirectory
from kaa_gateway.fleet.entry cimport DirectoryEntry

log = structlog.get_logger("gateway.fleet")

cdef enum:
    OFFERED_AT_ONCE = 100          # sessions

cdef double OFFER_TIME = 1.0       # seconds after which an offer that is not taken is made to another worker
cdef double POLL = 0.01            # seconds between looks whether offered sessions are gone
cdef double FOLLOWING_TIME = 1.0   # seconds for which a worker that stops sends messages after its last sessions


async def give_away(SessionDirectory directory not None, find_offers not None, double deadline):
    """Offer the sessions that `find_offers` returns to other workers, in turn, because this one stops.

    Some may still be on their way to this worker. Return when all are gone, when no other worker is there, or at
    `deadline`, a loop time.
    """
    loop = asyncio.get_running_loop()
    directory.others.say_goodbye()
    waiting = deque()
    offered = {}
    turn = 0
    while loop.time() < deadline and directory.link.ready:
        if not waiting and not offered:
            waiting.extend(find_offers())
            if not waiting and not directory.claims:
                break
        others = directory.others.present()
        if not others:
            break
        take_back(directory, offered, waiting, loop.time())
        while waiting and len(offered) < OFFERED_AT_ONCE:
            offer = waiting.popleft()
            directory.publish(others[turn % len(others)], None, offer)
            turn += 1
            offered[offer.name] = (offer, loop.time())
        await asyncio.sleep(POLL)
    while directory.link.ready and loop.time() < min(directory.transfers.given_at + FOLLOWING_TIME, deadline):
        await asyncio.sleep(POLL)
    if (waiting or offered) and directory.storage is None:
        log.warning("sessions of offline clients end with this worker", sessions=len(waiting) + len(offered))


cdef int take_back(SessionDirectory directory, dict offered, waiting, double now) except -1:
    """Forget the offers of sessions that are gone, and make those again that nobody has taken."""
    cdef DirectoryEntry entry
    for name, (offer, offered_at) in list(offered.items()):
        entry = directory.entries.get(name)
        if entry is None:
            del offered[name]
        elif entry.yielded_to is None and now - offered_at > OFFER_TIME:
            del offered[name]
            waiting.append(offer)  # to another worker: that one may stop too, or be busy
    return 0
