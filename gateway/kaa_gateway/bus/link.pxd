from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kaa_gateway.bus.block cimport Block
from kaa_gateway.bus.listener cimport Listener, Receiver
from kaa_gateway.counters cimport Histogram
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.nats cimport ServerMessage


cdef class Link


cdef class Connection:
    cdef Link link


cdef class Link:
    # wiring
    cdef readonly object loop
    cdef Listener listener
    cdef Connection connection     # whose callbacks count, or None
    cdef object transport
    cdef object waiter             # Future of the handshake step under way, or None
    cdef object failure            # BusError that ended the handshake, or None
    cdef object on_lost            # called with a sentence when an established connection ends
    cdef list subscriptions        # SUB lines to send on each connection
    cdef list receivers            # by subscription ID, from 1: its Receiver, or None for the listener
    cdef bytearray receive_storage
    cdef object receive_view
    cdef readonly Py_ssize_t pending_max    # bytes
    cdef double ping_timeout       # seconds
    # state
    cdef readonly bint ready       # the handshake is done and the connection stands
    cdef readonly bint headers     # the server takes HPUB
    cdef readonly bint full        # the backlog has passed pending_max and not yet fallen to half of it
    cdef Block block               # what this tick writes
    cdef object unconfirmed        # deque of sealed blocks, oldest first
    cdef list spare                # blocks to use again
    cdef Buffer tail               # an incomplete message
    cdef double confirmed_at       # loop time of the last PONG for a block, seconds
    cdef str last_server_error     # -ERR of this connection
    cdef bint flush_scheduled
    cdef object flush_callback
    cdef readonly Py_ssize_t payload_max   # bytes, by the newest INFO
    cdef Py_ssize_t payload_cap    # bytes; more has ended a connection, whatever its first INFO says; 0: nothing has
    cdef Py_ssize_t checked_max    # bytes; what waits for confirmation is not larger
    cdef Py_ssize_t resent_max     # bytes; the limit that fell while blocks were under way, for sending them again
    cdef bint expects_pong         # CONNECT is sent, or about to be
    cdef readonly dict info        # the newest INFO of this connection, or None
    cdef readonly Py_ssize_t backlog       # bytes published and not yet confirmed
    # counters
    cdef readonly uint64_t blocks_sent
    cdef readonly uint64_t blocks_confirmed
    cdef readonly uint64_t bytes_sent
    cdef readonly uint64_t publications_resent
    cdef readonly uint64_t publications_abandoned
    cdef readonly uint64_t messages_received
    cdef readonly uint64_t unattributed_no_responders
    cdef readonly uint64_t connects
    cdef readonly Histogram confirmation   # from a block's first publication to its confirmation

    cdef uint8_t* reserve(self, Py_ssize_t size) except NULL
    cdef int commit(self, Py_ssize_t size) except -1
    cdef int acknowledge_later(self, uint64_t session, uint32_t token) except -1
    cdef int grow(self, Py_ssize_t size) except -1
    cdef int publish(self, bytes head, Slice header, Slice payload) except -1
    cdef int trace(self, trace) except -1
    cdef int schedule_flush(self) except -1
    cdef int flush(self) except -1
    cdef int seal(self) except -1
    cdef int write(self, Block block) except -1
    cdef int write_ping(self) except -1
    cdef int write_beside(self, bytes publications) except -1
    cdef int confirm(self) except -1
    cdef int check_backlog(self) except -1
    cdef int recycle(self, Block block) except -1
    cdef int parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int receive(self, const ServerMessage* message) except -1
    cdef int set_payload_max(self, limit) except -1
    cdef int on_payload_violation(self) except -1
    cdef object expect(self)
    cdef Receiver receiver_of(self, Slice sid)
    cdef int find_no_responders(self, Slice subject) except -1
    cdef int fail_step(self, error) except -1
    cdef int detach(self, str sentence) except -1
    cdef Block rewrite(self, Block block)
