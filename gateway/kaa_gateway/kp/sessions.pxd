from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint32_t, uint64_t

from kaa_gateway.kp.correlation cimport Service
from kaa_gateway.counters cimport Counters, Protocol, VersionCounters
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.esp cimport ExtensionDataView


cdef struct Delivery:
    # An ExtensionData on its way to a session; slices of data borrow from the NATS bytes and end with the call.
    const ExtensionDataView* data
    bint correlated          # it answers a message of this very session ...
    Service service          # ... which came in this way,
    uint32_t sequence        # ... with this number
    PyObject* attachment     # borrowed: by which name the session speaks for the endpoint, or NULL if it has to look


cdef struct Traffic:
    # Messages and their payload bytes.
    uint64_t messages_in
    uint64_t bytes_in
    uint64_t messages_out
    uint64_t bytes_out


cdef class Endpoint:
    # state
    cdef readonly bytes endpoint_id
    cdef bytes app_version        # that it was named under last
    cdef dict sessions            # Session -> its latest Attachment, in order of sessions
    cdef dict bindings            # extension instance -> Binding, the router's
    cdef Py_ssize_t route_count   # cached routes that name it
    cdef Py_ssize_t present_count  # connections over which it is reachable, and one if it is watched
    cdef uint32_t revocations     # how often tokens of it were revoked
    cdef VersionCounters version_counters   # counts of the application version that it was named under last
    # state, if it speaks without a connection
    cdef bint watched             # it counts as connected until it has been silent for long
    cdef bytes watched_as         # application version of that
    cdef uint64_t messages_seen   # messages_in at the last look
    cdef int quiet_looks          # that have found nothing new, in a row
    cdef double next_look         # loop time
    # counters
    cdef Traffic traffic
    cdef Traffic reported         # of these, what has been reported


cdef class Attachment:
    # One name of an endpoint for which a session speaks.
    cdef Endpoint endpoint
    cdef bytes token
    cdef bytes app_version
    cdef uint32_t number          # place in the session's attachments
    cdef object identity          # the provider's Identity


cdef class Session:
    # wiring
    cdef Counters counters
    cdef Protocol protocol
    # identity
    cdef str principal            # what names its client's credentials; empty if there are none
    cdef str tenant               # the only one whose applications it may speak for, or None
    # state
    cdef uint64_t key             # slot and generation
    cdef bint closed
    cdef bint online              # its device can be reached now, unasked
    cdef bint connectionless      # it ends unnoticed, or with each message: endpoints are watched
    cdef bint resume_wanted       # was told BUSY
    cdef object last_route        # Route of the last message, or None
    cdef Attachment current       # of the last message, or None
    cdef dict attached            # (application version, token) -> Attachment
    cdef list attachments         # the same by number; None where one was taken away
    cdef dict waiting             # (application version, token) -> list of messages that wait for its identity
    cdef Py_ssize_t waiting_count
    cdef Py_ssize_t waiting_bytes
    cdef set sought               # keys that topic filters have named, and no provider has told of yet

    cdef int acknowledge(self, uint32_t token) except -1
    cdef int fail(
        self, Slice topic, Service service, bint has_request_id, uint32_t sequence, int status, str reason_phrase
    ) except -1
    cdef bint deliver(self, Delivery* delivery, Endpoint endpoint) except -1
    cdef int resume(self) except -1
    cdef int end(self, str reason) except -1
    cdef Attachment attachment_of(self, Endpoint endpoint, uint32_t number)


cdef class Sessions:
    # wiring
    cdef Counters counters
    # state
    cdef list slots               # Session, or the int of the next free slot
    cdef list generations
    cdef int32_t first_free
    cdef int32_t last_free
    cdef dict endpoints           # endpoint ID -> Endpoint that some session or cached route names
    cdef readonly Py_ssize_t count
    cdef Py_ssize_t endpoints_per_session_max
    cdef object presence          # told of each endpoint that becomes reachable, or no longer is
    cdef double now               # loop time of the last look for idle endpoints
    cdef double look_period       # seconds between looks at a watched endpoint; 0: none is watched
    cdef Py_ssize_t watched_max
    cdef object watched           # OrderedDict of Endpoint -> None, in order of next_look
    cdef Py_ssize_t departed_max  # 0: traffic is not reported
    cdef dict departed            # (application version, endpoint ID) -> unreported traffic of those that are gone
    cdef object on_departed_full  # called when there are so many of them

    cdef int open(self, Session session) except -1
    cdef int close(self, Session session) except -1
    cdef int set_online(self, Session session, bint online) except -1
    cdef int hear(self, Session session, Attachment attachment) except -1
    cdef int watch(self, Endpoint endpoint, bytes app_version) except -1
    cdef int unwatch(self, Endpoint endpoint) except -1
    cdef int name_endpoint(self, Endpoint endpoint, bytes app_version) except -1
    cdef int keep_traffic(self, Endpoint endpoint) except -1
    cdef int appear(self, Endpoint endpoint, bytes app_version) except -1
    cdef int disappear(self, Endpoint endpoint, bytes app_version) except -1
    cdef Session find(self, uint64_t key)
    cdef Endpoint endpoint(self, bytes endpoint_id)
    cdef Endpoint known_endpoint(self, Slice endpoint_id)
    cdef Endpoint endpoint_for(self, Session session, Slice endpoint_id)
    cdef Attachment attach(self, Session session, Endpoint endpoint, bytes token, bytes app_version, identity)
    cdef int detach(self, Session session, Attachment attachment) except -1
    cdef int release(self, Endpoint endpoint) except -1
