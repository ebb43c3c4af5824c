cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kaa_gateway.bus.block cimport Acknowledgement, Block
from kaa_gateway.bus.listener cimport Listener, Receiver
from kaa_gateway.bus.transport cimport LinkTransport
from kaa_gateway.counters cimport Histogram
from kaa_gateway.tick cimport Tick, TickOutput
from kaa_gateway.wire.buffer cimport Buffer, Slice
from kaa_gateway.wire.nats cimport ServerMessage


cdef class Link(TickOutput):
    # wiring
    cdef readonly object loop
    cdef Tick tick
    cdef Listener listener
    cdef object connection         # the last Connection, which may have ended; None before the first
    cdef LinkTransport transport   # None without a connection
    cdef object on_lost            # called with a sentence when an established connection ends
    cdef list subscriptions        # SUB lines to send on each connection
    cdef list receivers            # by subscription ID, from 1: its Receiver, or the listener
    cdef Receiver numbered         # has the subscriptions from `numbered_from` on, and writes their lines itself
    cdef Py_ssize_t numbered_from
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
    cdef double confirmed_at       # when the last PONG for a block came, by clock.monotonic
    cdef readonly Py_ssize_t payload_max   # bytes, by the newest INFO
    cdef Py_ssize_t payload_cap    # bytes; more has ended a connection, whatever its first INFO says; 0: nothing has
    cdef Py_ssize_t checked_max    # bytes; what waits for confirmation is not larger
    cdef Py_ssize_t resent_max     # bytes; the limit that fell while blocks were under way, for sending them again
    cdef readonly Py_ssize_t backlog       # bytes published and not yet confirmed
    cdef readonly Py_ssize_t unread        # bytes of `write_once` that the server is not known to have read
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

    # Publishing: the hot path.

    @cython.final
    cdef inline uint8_t* reserve(self, Py_ssize_t size) except NULL:
        # Return where the next publication goes, with room for `size` bytes; valid until the next call of the link.
        return self.block.reserve(size)

    @cython.final
    cdef inline int commit(self, Py_ssize_t size) except -1:
        # Add `size` bytes, one or more whole PUBs, that were written where `reserve` said.
        self.block.size += size
        return self.grow(size)

    @cython.final
    cdef inline int acknowledge_later(self, uint64_t session, uint32_t token) except -1:
        # Hand `token` to the listener when all that was committed so far is confirmed.
        self.block.append_acknowledgement(session, token)
        return self.grow(sizeof(Acknowledgement))

    @cython.final
    cdef inline int grow(self, Py_ssize_t size) except -1:
        # Count the bytes by which the block has grown, and schedule its writing.
        self.backlog += size
        if self.backlog > self.pending_max and not self.full:
            self.on_full()
        if not self.due:
            self.schedule_flush()
        return 0

    cdef int on_full(self) except -1
    cdef int publish(self, bytes head, Slice header, Slice payload) except -1
    cdef int trace(self, trace) except -1
    cdef int schedule_flush(self) except -1
    cdef int flush(self) except -1
    cdef int seal(self) except -1
    cdef int write(self, Block block) except -1
    cdef int write_ping(self) except -1
    cdef int write_beside(self, bytes publications) except -1
    cdef int write_once(self, bytes lines) except -1
    cdef int count_read(self, Block block) except -1
    cdef int confirm(self) except -1
    cdef int check_backlog(self) except -1
    cdef int recycle(self, Block block) except -1
    cdef int parse(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int receive(self, const ServerMessage* message) except -1
    cdef int set_payload_max(self, limit) except -1
    cdef int on_payload_violation(self) except -1
    cdef Receiver receiver_of(self, Slice sid)
    cdef int find_no_responders(self, Slice subject) except -1
    cdef int detach(self, str sentence) except -1
    cdef Py_ssize_t unwritten(self) except -1
    cdef bint is_connected(self)
    cdef Block rewrite(self, Block block)
