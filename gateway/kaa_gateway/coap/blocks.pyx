"""The bodies of blockwise transfers: requests that are not yet whole, responses that are not yet fetched.

A body belongs to a peer and to a resource (method, Request-Tag and path: what RFC 7959 section 2.4 lets a client
tell transfers apart by). All are bounded in bytes, in number for each peer, and in time.

Source: RFC 7959; RFC 9175 section 3 (Request-Tag).
"""

from collections import OrderedDict

cdef enum:
    BODY_SIZE_MIN = 1024  # bytes for which even an empty body counts: so much its place in the tables takes


cdef class Body:
    """One body."""


cdef class BodyTable:
    """At most `bytes_max` bytes of bodies, `per_peer_max` bodies of a peer, each kept for `lifetime` seconds unused."""

    def __init__(self, Py_ssize_t bytes_max, Py_ssize_t per_peer_max, double lifetime):
        self.bytes_max = bytes_max
        self.bodies_max = max(bytes_max // BODY_SIZE_MIN, 1)
        self.per_peer_max = per_peer_max
        self.lifetime = lifetime
        self.bodies = OrderedDict()
        self.per_peer = {}

    def __len__(self):
        return len(self.bodies)

    cdef Body find(self, object peer, bytes resource, double now):
        """The body of a resource, used now, or None."""
        cdef Body body = self.bodies.get((peer, resource))
        if body is None or body.deadline <= now:
            return None
        body.deadline = now + self.lifetime
        self.bodies.move_to_end((peer, resource))
        return body

    cdef Body open(self, object peer, bytes resource, double now):
        """A new, empty body in the place of the last one of this resource; None if there are too many of all peers.

        The peer's oldest may have to go for it.
        """
        cdef Body body = self.bodies.get((peer, resource))
        if body is not None:
            self.remove(body)
        mine = self.per_peer.setdefault(peer, {})
        if len(mine) >= self.per_peer_max:
            self.remove(self.bodies[(peer, next(iter(mine)))])
            mine = self.per_peer.setdefault(peer, {})
        if len(self.bodies) >= self.bodies_max:
            if not mine:
                del self.per_peer[peer]
            return None
        body = Body()
        body.peer = peer
        body.resource = resource
        body.content = Buffer()
        body.deadline = now + self.lifetime
        self.bodies[(peer, resource)] = body
        mine[resource] = None
        return body

    cdef bint extend(self, Body body, const void* data, Py_ssize_t size) except -1:
        """Append to a body; False if all bodies together are too large for that."""
        if self.bytes + size > self.bytes_max:
            return False
        body.content.append(data, size)
        self.bytes += size
        return True

    cdef bint make_room(self, Py_ssize_t size) except -1:
        """Let the longest unused bodies go until `size` bytes can be added; False if they never can."""
        if size > self.bytes_max:
            return False
        while self.bytes + size > self.bytes_max or len(self.bodies) >= self.bodies_max:
            self.remove(next(iter(self.bodies.values())))
        return True

    cdef int remove(self, Body body) except -1:
        mine = self.per_peer[body.peer]
        del mine[body.resource]
        if not mine:
            del self.per_peer[body.peer]
        del self.bodies[(body.peer, body.resource)]
        self.bytes -= body.content.size
        return 0

    cdef int remove_all(self, object peer) except -1:
        """The peer is forgotten."""
        for resource in list(self.per_peer.get(peer, ())):
            self.remove(self.bodies[(peer, resource)])
        return 0

    cdef int expire(self, double now) except -1:
        """Forget what was not used for long."""
        cdef Body body
        while self.bodies:
            body = next(iter(self.bodies.values()))
            if body.deadline > now:
                break
            self.remove(body)
        return 0
