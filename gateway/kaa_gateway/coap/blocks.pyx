"""The bodies of blockwise transfers: requests that are being assembled, and responses whose blocks are still fetched.

A body belongs to a peer and a transfer key (method, Request-Tag and path: what RFC 7959 section 2.4 lets a client tell
transfers apart by). All bodies are bounded in bytes, in number for each peer, and in time.

Source: RFC 7959; RFC 9175 section 3 (Request-Tag).
"""

from collections import OrderedDict

from kaa_gateway.wire.buffer cimport slice_of

cdef enum:
    BODY_SIZE_MIN = 1024  # bytes that even an empty body counts for: about what its entries in the tables take


cdef class Body:
    """The body of a request or response, in bytes that have come or are to be fetched."""

    cdef void select_block(self, Block block, Response* response) noexcept:
        """Let a response carry a block of this body; its slices borrow from the body."""
        response.code = self.code
        response.body = Slice(self.content.data, self.content.size)
        response.offset = <Py_ssize_t>block.number << (block.szx + 4)
        response.content_format = self.content_format
        response.etag = slice_of(self.etag)


cdef class BodyTable:
    """At most `bytes_max` bytes of bodies and `per_peer_max` bodies of a peer, each kept `lifetime` seconds unused."""

    def __init__(self, Py_ssize_t bytes_max, Py_ssize_t per_peer_max, double lifetime):
        self.bytes_max = bytes_max
        self.bodies_max = max(bytes_max // BODY_SIZE_MIN, 1)
        self.per_peer_max = per_peer_max
        self.lifetime = lifetime
        self.bodies = OrderedDict()
        self.per_peer = {}

    def __len__(self):
        return len(self.bodies)

    # ------------------------------------------------------------ requests

    cdef BlockResult add_block(
        self, object peer, bytes transfer_key, Block block, Slice payload, double now
    ) except <BlockResult>-1:
        """Append a block to the body of a request; block 0 begins a new body."""
        cdef Py_ssize_t offset = <Py_ssize_t>block.number << (block.szx + 4)
        cdef Body body
        if offset == 0:
            body = self.open(peer, transfer_key, now)
            if body is None:
                return NO_BLOCK_MEMORY
        else:
            body = self.find(peer, transfer_key, now)
        if body is None or body.content.size != offset:
            return BLOCKS_MISSING
        if not self.append(body, payload):
            self.remove(body)
            return NO_BLOCK_MEMORY
        return ADDED

    cdef Body take(self, object peer, bytes transfer_key):
        """Remove and return a body that is in the table."""
        cdef Body body = self.bodies[(peer, transfer_key)]
        self.remove(body)
        return body

    # ------------------------------------------------------------ responses

    cdef Body keep(self, object peer, bytes transfer_key, const Response* response, double now):
        """Keep a copy of a response with an ETag of its own. Return None if it is larger than all memory.

        The longest unused bodies go to make room for it.
        """
        cdef Body body
        if not self.make_room(response.body.size):
            return None
        body = self.open(peer, transfer_key, now)
        self.append(body, response.body)
        self.etag += 1
        body.code = response.code
        body.content_format = response.content_format
        body.etag = self.etag.to_bytes(4, "big")
        return body

    # ------------------------------------------------------------ both

    cdef Body find(self, object peer, bytes transfer_key, double now):
        """Return the body of a transfer, or None. Its lifetime begins anew."""
        cdef Body body = self.bodies.get((peer, transfer_key))
        if body is None or body.deadline <= now:
            return None
        body.deadline = now + self.lifetime
        self.bodies.move_to_end((peer, transfer_key))
        return body

    cdef int remove(self, Body body) except -1:
        """Remove a body that is in the table."""
        mine = self.per_peer[body.peer]
        del mine[body.transfer_key]
        if not mine:
            del self.per_peer[body.peer]
        del self.bodies[(body.peer, body.transfer_key)]
        self.bytes -= body.content.size
        return 0

    cdef int remove_all(self, object peer) except -1:
        """Remove all bodies of a peer."""
        for transfer_key in list(self.per_peer.get(peer, ())):
            self.remove(self.bodies[(peer, transfer_key)])
        return 0

    cdef int expire(self, double now) except -1:
        """Remove the bodies whose lifetime is over."""
        cdef Body body
        while self.bodies:
            body = next(iter(self.bodies.values()))
            if body.deadline > now:
                break
            self.remove(body)
        return 0

    cdef Body open(self, object peer, bytes transfer_key, double now):
        """Return a new, empty body in place of the last one of this transfer; None if the table is full.

        If the peer has as many bodies as it may have, its oldest one goes.
        """
        cdef Body body = self.bodies.get((peer, transfer_key))
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
        body.transfer_key = transfer_key
        body.content = Buffer()
        body.deadline = now + self.lifetime
        self.bodies[(peer, transfer_key)] = body
        mine[transfer_key] = None
        return body

    cdef bint append(self, Body body, Slice data) except -1:
        """Append to a body. Return False if all bodies together would be too large."""
        if self.bytes + data.size > self.bytes_max:
            return False
        body.content.append(data.data, data.size)
        self.bytes += data.size
        return True

    cdef bint make_room(self, Py_ssize_t size) except -1:
        """Remove the longest unused bodies until `size` bytes can be added. Return False if they never can."""
        if size > self.bytes_max:
            return False
        while self.bytes + size > self.bytes_max or len(self.bodies) >= self.bodies_max:
            self.remove(next(iter(self.bodies.values())))
        return True
