"""The endpoints of a worker by ID, and their traffic for the reports of 9/ELCE.

An endpoint is kept while a session is attached to it, a cached route leads to it, or it is watched (presence.pyx).
"""

from typing import NamedTuple

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from kaa_gateway.kp.session cimport Traffic
from kaa_gateway.wire.buffer cimport slice_of


class TrafficRow(NamedTuple):
    """The traffic of an endpoint under an application version since the last report, in the order of 9/ELCE."""

    app_version: bytes
    endpoint_id: bytes
    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_out: int


cdef class Endpoints:
    """The endpoints of a worker by ID."""

    def __init__(self):
        self.by_id = {}
        self.departed = {}

    def __len__(self):
        return len(self.by_id)

    def get(self, bytes endpoint_id not None):
        """Return the endpoint of an ID, or None."""
        return self.by_id.get(endpoint_id)

    def all(self):
        """Return a list of all endpoints."""
        return list(self.by_id.values())

    cdef Endpoint make(self, bytes endpoint_id):
        """Return the endpoint of an ID; a new one if there is none."""
        endpoint = self.by_id.get(endpoint_id)
        if endpoint is None:
            endpoint = self.by_id[endpoint_id] = Endpoint(endpoint_id)
        return <Endpoint>endpoint

    cdef Endpoint find(self, Slice endpoint_id):
        """Return the endpoint of an ID, or None. Hot path.

        One that was found before is mostly in its place of `recent`, which costs no bytes object.
        """
        cdef PyObject** place
        cdef Endpoint endpoint
        if endpoint_id.data == NULL:
            return None
        place = &self.recent[place_of(endpoint_id)]
        if place[0] != NULL and is_id(slice_of((<Endpoint>place[0]).endpoint_id), endpoint_id):
            return <Endpoint>place[0]
        endpoint = self.by_id.get(endpoint_id.data[:endpoint_id.size])
        if endpoint is not None:
            place[0] = <PyObject*>endpoint
        return endpoint

    cdef int hold(self, Endpoint endpoint) except -1:
        """Keep an endpoint, which may have been released meanwhile."""
        self.recent[place_of(slice_of(endpoint.endpoint_id))] = NULL  # if another one has taken its place
        self.by_id[endpoint.endpoint_id] = endpoint
        return 0

    cdef int release(self, Endpoint endpoint) except -1:
        """Forget an endpoint to which no session, no cached route and no presence refers."""
        cdef PyObject** place
        if endpoint.session_count() == 0 and endpoint.route_count == 0 and not endpoint.watched \
                and self.by_id.get(endpoint.endpoint_id) is endpoint:
            place = &self.recent[place_of(slice_of(endpoint.endpoint_id))]
            if place[0] == <PyObject*>endpoint:
                place[0] = NULL
            del self.by_id[endpoint.endpoint_id]
            self.keep_traffic(endpoint)
        return 0

    # ------------------------------------------------------------ traffic

    cdef int set_app_version(self, Endpoint endpoint, bytes app_version) except -1:
        """Count the endpoint's traffic under an application version from now on."""
        if endpoint.app_version is not None and endpoint.app_version != app_version:
            self.keep_traffic(endpoint)
        endpoint.app_version = app_version
        return 0

    cdef int keep_traffic(self, Endpoint endpoint) except -1:
        """Put aside the endpoint's traffic since the last report."""
        if self.departed_max == 0 or endpoint.app_version is None:
            return 0
        new = take(endpoint)
        if new is None:
            return 0
        key = (endpoint.app_version, endpoint.endpoint_id)
        before = self.departed.get(key)
        self.departed[key] = new if before is None else tuple([a + b for a, b in zip(before, new)])
        if before is None and len(self.departed) == self.departed_max:
            self.on_departed_full()
        return 0

    def report_traffic(self, Py_ssize_t departed_max, on_departed_full):
        """Keep the traffic of endpoints that are released until it is taken.

        `on_departed_full` is called when so many are kept, and must have it taken.
        """
        self.departed_max = departed_max
        self.on_departed_full = on_departed_full

    def begin_traffic(self):
        """Return the endpoints whose traffic `take_traffic` can take, and the rows of those that have gone."""
        departed = [TrafficRow(*key, *counts) for key, counts in self.departed.items()]
        self.departed = {}
        return self.all(), departed

    def take_traffic(self, list endpoints not None):
        """Return a row for each of these endpoints that has had traffic since it was last taken."""
        cdef Endpoint endpoint
        rows = []
        for endpoint in endpoints:
            # The traffic of one that was released meanwhile is put aside; one without a version has had none.
            if endpoint.app_version is not None:
                new = take(endpoint)
                if new is not None:
                    rows.append(TrafficRow(endpoint.app_version, endpoint.endpoint_id, *new))
        return rows


cdef inline uint32_t place_of(Slice endpoint_id) noexcept nogil:
    """Return the place of an endpoint ID in `recent`: by its length and last bytes. Hot path.

    Only the upper bits of the product depend on all bits of the word, and those of the last characters are the highest.
    """
    cdef uint64_t word = 0
    cdef Py_ssize_t size = min(endpoint_id.size, 8)
    memcpy(&word, endpoint_id.data + endpoint_id.size - size, <size_t>size)
    return <uint32_t>(((word ^ <uint64_t>endpoint_id.size) * 0x9E3779B97F4A7C15ULL) >> (64 - RECENT_BITS))


cdef inline bint is_id(Slice one, Slice other) noexcept nogil:
    return one.size == other.size and memcmp(one.data, other.data, <size_t>one.size) == 0


cdef tuple take(Endpoint endpoint):
    """Return the counts of an endpoint since the last time, in the order of TrafficRow; None if there were none."""
    cdef Traffic now = endpoint.traffic, then = endpoint.reported
    if now.messages_in == then.messages_in and now.messages_out == then.messages_out:
        return None
    endpoint.reported = now
    return (
        now.bytes_in - then.bytes_in, now.bytes_out - then.bytes_out, now.messages_in - then.messages_in,
        now.messages_out - then.messages_out,
    )
