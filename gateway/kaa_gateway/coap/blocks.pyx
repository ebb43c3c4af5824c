"""The bodies of blockwise transfers: requests that are being assembled, and responses whose blocks are still fetched.

A body belongs to a peer and a transfer key (method, Request-Tag and path: what RFC 7959 section 2.4 lets a client tell
transfers apart by). A client may use one token for all blocks of a transfer, or another one for each. So a block is of
the body that began with its token, or else of the latest body of its transfer key which it fits to.
All bodies are bounded in bytes, in number for each peer, and in time.

Source: RFC 7959; RFC 9175 section 3 (Request-Tag).
"""

import hashlib
from collections import OrderedDict

from kaa_gateway.coap.options cimport ETAG_SIZE
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.coap cimport INTERNAL_SERVER_ERROR, block_offset

cdef enum:
    BODY_SIZE_MIN = 1024  # bytes that even an empty body counts for: about what its entries in the tables take


cdef bytes etag_of(Slice body):
    """Return the ETag of a body: equal bodies have equal ones."""
    return hashlib.blake2b(body.data[:body.size], digest_size=ETAG_SIZE).digest()


cdef class Body:
    """The body of a request or response, in bytes that have come or are to be fetched."""

    cdef void select_block(self, Block block, Response* response) noexcept:
        """Let a response carry a block of this body; its slices borrow from the body."""
        response.code = self.code
        response.body = Slice(self.content.data, self.content.size)
        response.offset = block_offset(block)
        response.content_format = self.content_format
        response.etag = slice_of(self.etag)
        response.kept = True


cdef class BodyTable:
    """A table of bodies: at most `bytes_max` bytes and `per_peer_max` bodies of a peer, kept for `lifetime` seconds."""

    def __init__(self, Py_ssize_t bytes_max, Py_ssize_t per_peer_max, double lifetime):
        self.bytes_max = bytes_max
        self.bodies_max = max(bytes_max // BODY_SIZE_MIN, 1)
        self.per_peer_max = per_peer_max
        self.lifetime = lifetime
        self.bodies = OrderedDict()
        self.whole = OrderedDict()
        self.per_peer = {}

    def __len__(self):
        return len(self.bodies) - len(self.whole)

    # ------------------------------------------------------------ requests

    cdef BlockResult add_block(
        self, object peer, bytes transfer_key, bytes token, Block block, Slice payload, double now
    ) except <BlockResult>-1:
        """Append a block to the body of a request, which is `current` from here on; block 0 begins a new body.

        A repetition of the last block changes nothing.
        """
        cdef int64_t offset = block_offset(block)
        cdef Body body
        if offset == 0:
            body = self.open(peer, transfer_key, token, now, False)
            if body is None:
                return NO_BLOCK_MEMORY
        else:
            body = self.find_request(peer, transfer_key, token, offset, payload)
            if body is None:
                return BLOCKS_MISSING
            self.use(body, now)
            self.current = body
            if body.whole:
                return REPEATED
            if body.last_offset == offset:
                return ADDED  # before: its answer was lost
        if not self.append(body, payload):
            self.remove(body)
            return NO_BLOCK_MEMORY
        self.current = body
        body.last_offset = offset
        body.last_block = payload.data[:payload.size] if payload.size else b""
        return ADDED

    cdef Body find_request(self, object peer, bytes transfer_key, bytes token, int64_t offset, Slice payload):
        """Return the body that a block continues or repeats, or None."""
        cdef dict mine = self.per_peer.get(peer)
        cdef Body body
        if mine is None:
            return None
        candidates = [body for body in reversed(mine.values()) if body.transfer_key == transfer_key]
        body = mine.get((transfer_key, token))
        if body is not None:
            candidates.insert(0, body)
        for body in candidates:
            if not body.whole and body.content.size == offset:
                return body
            if body.last_offset == offset and slice_of(body.last_block).size == payload.size \
                    and body.last_block == payload.data[:payload.size]:
                return body
        return None

    cdef Buffer take_content(self, Body body):
        """Return the content of a body that is whole. What remains answers a repetition of its last block."""
        cdef Buffer content = body.content
        self.bytes -= content.size
        body.content = Buffer()
        body.whole = True
        self.whole[body] = None
        return content

    cdef int keep_response_to(self, Body request, const Response* response) except -1:
        """Keep the response to a request that came in blocks, for a repetition of the last one.

        After a failure of the server the client may begin anew.
        """
        if request not in self.bodies:
            return 0
        if response.code >= INTERNAL_SERVER_ERROR or not self.append(request, response.body):
            return self.remove(request)
        request.code = response.code
        request.content_format = response.content_format
        return 0

    # ------------------------------------------------------------ responses

    cdef Body keep(self, object peer, bytes transfer_key, bytes token, const Response* response, double now):
        """Keep a copy of a response and give it an ETag. Return None if it is larger than all memory.

        The longest unused bodies go to make room for it.
        """
        cdef Body body
        if not self.make_room(response.body.size):
            return None
        body = self.open(peer, transfer_key, token, now, True)
        self.append(body, response.body)
        body.code = response.code
        body.content_format = response.content_format
        body.etag = etag_of(response.body)
        return body

    cdef Body find_response(self, object peer, bytes transfer_key, bytes token, double now):
        """Return the response that a request for a further block is about, or None."""
        cdef dict mine = self.per_peer.get(peer)
        cdef Body body
        if mine is None:
            return None
        body = mine.get((transfer_key, token))
        if body is None:
            for body in reversed(mine.values()):
                if body.transfer_key == transfer_key:
                    break
            else:
                return None
        if body.deadline <= now:
            return None
        self.use(body, now)
        return body

    # ------------------------------------------------------------ both

    cdef int use(self, Body body, double now) except -1:
        """Let the lifetime of a body begin anew."""
        body.deadline = now + self.lifetime
        self.bodies.move_to_end(body)
        return 0

    cdef int remove(self, Body body) except -1:
        """Remove a body that is in the table."""
        cdef dict mine = self.per_peer[body.peer]
        del mine[(body.transfer_key, body.token)]
        if not mine:
            del self.per_peer[body.peer]
        del self.bodies[body]
        self.whole.pop(body, None)
        self.bytes -= body.content.size
        return 0

    cdef int remove_all(self, object peer) except -1:
        """Remove all bodies of a peer."""
        cdef Body body
        for body in list(self.per_peer.get(peer, {}).values()):
            self.remove(body)
        return 0

    cdef int expire(self, double now) except -1:
        """Remove the bodies whose lifetime is over."""
        cdef Body body
        while self.bodies:
            body = next(iter(self.bodies))
            if body.deadline > now:
                break
            self.remove(body)
        return 0

    cdef Body open(self, object peer, bytes transfer_key, bytes token, double now, bint replaces_oldest):
        """Return a new, empty body; None if the peer has too many, or the table is full.

        It takes the place of the body with its transfer key and token. If the peer has too many, it takes that of one
        which is no longer needed, or of the oldest with its transfer key, or of the oldest if it `replaces_oldest`.
        """
        cdef dict mine = self.per_peer.get(peer, {})
        cdef Body body = mine.get((transfer_key, token)), other
        if body is None and len(mine) >= self.per_peer_max:
            for other in mine.values():
                if other.whole:
                    body = other
                    break
                if body is None and (replaces_oldest or other.transfer_key == transfer_key):
                    body = other
            if body is None:
                return None
        if body is not None:
            self.remove(body)
        while len(self.bodies) >= self.bodies_max:
            if not self.whole:
                return None
            self.remove(next(iter(self.whole)))
        body = Body()
        body.peer = peer
        body.transfer_key = transfer_key
        body.token = token
        body.content = Buffer()
        body.deadline = now + self.lifetime
        body.last_offset = -1
        self.bodies[body] = None
        self.per_peer.setdefault(peer, {})[(transfer_key, token)] = body
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
            self.remove(next(iter(self.bodies)))
        return True
