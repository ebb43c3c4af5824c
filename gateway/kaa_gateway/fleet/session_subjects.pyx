"""The subscriptions of a worker to the subjects of sessions.

A subscription stays for a while when its session has gone to another worker. Each server of a NATS cluster learns of
subscriptions in its own time. So one may know that a session has left a worker, and not yet to which it has gone; a
claim that it carries meanwhile reaches the former worker, which sends it on.
"""

from collections import OrderedDict
from typing import NamedTuple

from kaa_gateway.fleet.entry cimport DirectoryEntry

cdef enum:
    FORMER_MAX = 20_000            # subscriptions that stay

cdef double SPREADING_TIME = 3.0   # seconds in which the servers of a NATS cluster surely learn of subscriptions


class Former(NamedTuple):
    """A subscription to the subject of a session that has gone, and the loop time at which it ends."""

    sid: int
    until: float


cdef class SessionSubjects:
    """The subjects that one worker is subscribed to."""

    def __init__(self, Outbox outbox not None, str prefix not None):
        self.outbox = outbox
        self.prefix = prefix
        self.free_sids = []
        self.last_sid = FIRST_SID - 1
        self.former = OrderedDict()

    cdef uint32_t join(self, str name) except 0:
        """Subscribe to the subject of a session, and return the subscription's ID."""
        cdef uint32_t sid
        former = self.former.pop(name, None)
        if former is not None:
            return former.sid
        if self.free_sids:
            sid = self.free_sids.pop()
        else:
            self.last_sid += 1
            sid = self.last_sid
        self.outbox.subscribe(self.prefix + name, sid)
        return sid

    cdef int leave(self, uint32_t sid) except -1:
        """End a subscription."""
        self.free_sids.append(sid)
        return self.outbox.unsubscribe(sid)

    cdef int leave_later(self, str name, uint32_t sid) except -1:
        """End the subscription to the subject of a session, which has gone, when all servers know the next one.

        If there are too many of them, the oldest ends now.
        """
        if len(self.former) >= FORMER_MAX:
            self.leave_oldest()
        self.former[name] = Former(sid, self.outbox.link.loop.time() + SPREADING_TIME)
        return 0

    cdef int leave_former(self, double now) except -1:
        """End the subscriptions that have stayed for long enough."""
        while self.former:
            if next(iter(self.former.values())).until > now:
                break
            self.leave_oldest()
        return 0

    cdef int leave_oldest(self) except -1:
        """End the subscription that has stayed for longest."""
        _, former = self.former.popitem(last=False)
        return self.leave(former.sid)

    cdef int join_again(self, dict entries) except -1:
        """Subscribe anew over a new connection to NATS. Only the sessions that are here count: `entries`, by name."""
        cdef DirectoryEntry entry
        for former in self.former.values():
            self.free_sids.append(former.sid)
        self.former.clear()
        return self.outbox.subscribe_again([(self.prefix + entry.name, entry.sid) for entry in entries.values()])
