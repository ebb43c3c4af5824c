from kaa_gateway.wire.buffer cimport Buffer


cdef class Body:
    # The body of a request that is being put together, or of a response that is fetched block by block.
    # wiring
    cdef object peer             # CoapPeer
    # state
    cdef bytes resource          # method, Request-Tag and path
    cdef Buffer content
    cdef double deadline
    cdef int code                # of a response
    cdef int content_format
    cdef bytes etag


cdef class BodyTable:
    # wiring
    cdef Py_ssize_t bytes_max
    cdef Py_ssize_t bodies_max
    cdef Py_ssize_t per_peer_max
    cdef double lifetime         # seconds after its last use
    # state
    cdef object bodies           # OrderedDict of (peer, resource) -> Body, the longest unused first
    cdef dict per_peer           # peer -> {resource: None}, the oldest first
    cdef readonly Py_ssize_t bytes

    cdef Body find(self, object peer, bytes resource, double now)
    cdef Body open(self, object peer, bytes resource, double now)
    cdef bint extend(self, Body body, const void* data, Py_ssize_t size) except -1
    cdef bint make_room(self, Py_ssize_t size) except -1
    cdef int remove(self, Body body) except -1
    cdef int remove_all(self, object peer) except -1
    cdef int expire(self, double now) except -1
