from libc.stdint cimport int64_t, uint64_t


cdef enum Protocol:
    MQTT = 0
    HTTP = 1
    COAP = 2
    KPUDP = 3
    MQTT_SN = 4
    PLUGIN_FIRST = 5        # those of plug-ins follow, in the order in which they were added
    PROTOCOL_COUNT = 13


cdef enum:
    BUCKET_COUNT = 18   # of a histogram; the last is without an upper bound


cdef class VersionCounters:
    # counters of one application version, or of messages without one; by protocol
    cdef uint64_t[PROTOCOL_COUNT] messages_in
    cdef uint64_t[PROTOCOL_COUNT] bytes_in        # of payload
    cdef uint64_t[PROTOCOL_COUNT] messages_out
    cdef uint64_t[PROTOCOL_COUNT] bytes_out       # of payload

    cdef inline void count_in(self, Protocol protocol, Py_ssize_t size) noexcept:
        # A message of a device. Hot path.
        self.messages_in[<int>protocol] += 1
        self.bytes_in[<int>protocol] += <uint64_t>size

    cdef inline void count_out(self, Protocol protocol, Py_ssize_t size) noexcept:
        # A message to a device. Hot path.
        self.messages_out[<int>protocol] += 1
        self.bytes_out[<int>protocol] += <uint64_t>size


cdef class ExtensionCounters:
    # counters of one extension instance
    cdef uint64_t messages        # sent to it
    cdef uint64_t unserved        # of those that NATS dropped: nobody took them, or it may not be asked


cdef class ReasonCounter:
    # an event with its reason that is not rare
    cdef uint64_t count


cdef class Ending:
    # of a connection; the oldest object is used again for a new ending
    cdef int64_t ended_at   # microseconds since the epoch
    cdef str client_id
    cdef bytes address      # sockaddr
    cdef str reason


cdef class Counters:
    # state
    cdef readonly list names      # of the protocols, by number
    cdef dict extensions          # extension instance -> its ExtensionCounters
    cdef dict versions            # application version -> its VersionCounters
    cdef VersionCounters unrouted  # counters of messages whose application version is missing or was not read
    # counters, by protocol
    cdef uint64_t[PROTOCOL_COUNT] connections_opened
    cdef uint64_t[PROTOCOL_COUNT] connections_closed
    cdef dict reasons  # (event, reason) -> count, of rare events
    cdef dict frequent  # (event, reason) -> its ReasonCounter, of the others
    cdef list endings             # Ending; a ring when it has `endings_kept`
    cdef Py_ssize_t endings_kept
    cdef Py_ssize_t oldest_ending

    cdef int count(self, str event, str reason) except -1
    cdef ReasonCounter counter_of(self, str event, str reason)
    cdef int remember_end(self, str client_id, bytes address, str reason) except -1
    cdef VersionCounters counters_of(self, bytes app_version)
    cdef ExtensionCounters counters_of_extension(self, bytes instance)


cdef class Histogram:
    # counters
    cdef uint64_t[BUCKET_COUNT] counts
    cdef double sum

    cdef void observe(self, double seconds) noexcept
