"""Publications that JetStream confirms: one lane for each durable extension instance, beside the blocks of the link.

The link's own confirmation (PONG) says that a server has read a message; a lane waits until its stream has stored it.
A publication's reply subject is the 4/ESP one with a further token that names the publication, so that a PubAck is
never taken for another's, whatever was lost in between. The lanes subscribe to these subjects. An extension that only
knows core NATS answers there as well: a PubAck is JSON and begins with `{`, which no ExtensionData does. Consumers of
the stream find the plain 4/ESP reply-to in a header, because JetStream does not keep the reply subject, and the stream
drops repetitions by their message ID.

A lane keeps its publications, in order, until they are stored. When the stream cannot store (it is full, gone, without
a leader, silent), the lane stalls: it tries one publication at a time, and goes on from the oldest when that is stored.
What the acknowledgements mean to a device is the listener's business. The bytes of a publication are wire/nats.pyx's.

Source: NATS documentation, "JetStream", publish acknowledgements; ADR-22; design notes in docs/architecture.md.
"""

from typing import NamedTuple

import msgspec
import structlog

from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from kaa_gateway.wire.esp cimport CORRELATION_ID_SIZE
from kaa_gateway.wire.nats cimport NUMBER_DIGITS, read_number, stored_payload

from kaa_gateway.errors import UNDECODABLE

from kaa_gateway.bus.subjects import REPLY_TO_HEADER

log = structlog.get_logger("gateway.bus")

cdef enum:
    IN_FLIGHT_MAX = 2048            # written and not stored; nats-server buffers 10,000 of a stream, of all publishers
    DATA_KEEP = 256 * 1024          # bytes of buffer that an empty lane keeps
    COMPACT_MIN = 64 * 1024         # bytes in front of the first publication that are worth moving the rest
    RING_MIN = 256                  # entries
    LANE_DIGITS = 2                 # of a lane in a reply subject
    LANES_MAX = 256
    TOO_LARGE_FOR_STREAM = 10054    # JetStream's error code: it will never be stored

cdef double PAUSE_FIRST = 0.05  # seconds before a stream that stores nothing is tried again; the pause doubles
cdef double PAUSE_MAX = 2.0
cdef double STEADY_AFTER = 5.0  # seconds without trouble after which a stream is said to be well

SILENT = "the stream does not answer"


class Failure(NamedTuple):
    """The reason why a stream has not stored a publication; `permanent`: it never will."""

    sentence: str
    permanent: bool


NO_STREAM = Failure("no stream takes the subject", False)


def read_answer(bytes answer not None, str stream not None):
    """Return None if a JetStream answer says that `stream` has stored a publication, else the Failure."""
    try:
        decoded = msgspec.json.decode(answer, type=dict)
    except UNDECODABLE:
        return Failure("an answer that is no PubAck", False)
    error = decoded.get("error")
    sequence = decoded.get("seq")
    if error is None and decoded.get("stream") == stream and isinstance(sequence, int) and sequence > 0:
        return None
    if isinstance(error, dict):
        return Failure(str(error.get("description", "error"))[:200], error.get("err_code") == TOO_LARGE_FOR_STREAM)
    return Failure("an answer of another stream", False)


cdef class DurableLane:
    """The publications of one worker to one stream.

    `reply_to` is the 4/ESP one, `token` the tag and number of the lane; `pending_max` bounds the bytes not yet stored,
    `ack_timeout` the seconds without any PubAck after which a stream counts as silent.
    """

    def __init__(
        self, Link link, Listener listener, str instance, str stream, str subject, str reply_to, str token,
        Py_ssize_t pending_max, double ack_timeout,
    ):
        self.link = link
        self.listener = listener
        self.instance = instance
        self.stream = stream
        self.form = StoredPublication(
            subject, f"{reply_to}.{token}", CORRELATION_ID_SIZE, f"{REPLY_TO_HEADER}: {reply_to}\r\n"
        )
        self.payload_offset = self.form.payload_offset
        self.good_answer = f'{{"stream":"{stream}","seq":'.encode()
        self.pending_max = pending_max
        self.ack_timeout = ack_timeout
        self.data = Buffer()
        self.pause = PAUSE_FIRST
        self.trouble = ""

    def __dealloc__(self):
        free(self.ring)

    def backlog(self):
        """Return the bytes that are not stored yet."""
        return self.backlog_size()

    def waiting(self):
        """Return the number of publications from the oldest that is not stored."""
        return <uint32_t>(self.next - self.first)

    # ------------------------------------------------------------ publishing: hot path

    cdef uint8_t* reserve(self, Py_ssize_t datum_size_max) except NULL:
        """Return where the datum of the next publication goes; valid until the next call of the lane."""
        return self.data.reserve(self.payload_offset + datum_size_max + 2) + self.payload_offset

    cdef int commit(
        self, Py_ssize_t datum_size, const uint8_t* message_id, uint64_t session, uint32_t token, RetryPolicy policy
    ) except -1:
        """Add the publication whose datum was written; `message_id` has the size of a correlation ID."""
        cdef Py_ssize_t size
        if <uint32_t>(self.next - self.first) == self.capacity:
            self.grow_ring()
        size = self.form.write(self.data.data + self.data.size, self.next, message_id, datum_size)
        self.data.size += size
        self.ring[self.next & (self.capacity - 1)] = Entry(
            session, self.end, 0.0, token, <uint32_t>size, policy, False
        )
        self.end += size
        self.next += 1
        if not self.full and self.backlog_size() > self.pending_max:
            self.full = True
            self.listener.on_backlog(True)
        return self.link.tick.add(self)

    cdef int trace_last(self, trace, bytes field) except -1:
        """Put a line into the header of the publication that was committed last, and tell `trace` when it is stored."""
        cdef Entry* entry = &self.ring[(self.next - 1) & (self.capacity - 1)]
        cdef Py_ssize_t size = len(field)
        cdef Py_ssize_t datum_size = entry.size - self.payload_offset - 2
        if self.traces is None:
            self.traces = {}
        self.traces[<uint32_t>(self.next - 1)] = trace
        if self.form.header_size_with(field) + datum_size > self.link.payload_max:
            return 0
        self.data.reserve(size)
        self.form.add_field(self.data.data + self.data.size - entry.size, entry.size, field)
        entry.size += <uint32_t>size
        self.end += size
        self.data.size += size
        return 0

    cdef int grow_ring(self) except -1:
        """Make room for twice as many entries; each keeps its number."""
        cdef uint32_t capacity = max(2 * self.capacity, <uint32_t>RING_MIN), number
        cdef Entry* grown = <Entry*>realloc(NULL, <size_t>capacity * sizeof(Entry))
        if grown == NULL:
            raise MemoryError
        for number in range(<uint32_t>(self.next - self.first)):
            grown[(self.first + number) & (capacity - 1)] = self.ring[(self.first + number) & (self.capacity - 1)]
        free(self.ring)
        self.ring = grown
        self.capacity = capacity
        return 0

    cdef Py_ssize_t backlog_size(self) noexcept:
        return self.data.size - self.data_start + <Py_ssize_t>(<uint32_t>(self.next - self.first)) \
            * <Py_ssize_t>sizeof(Entry)

    cdef int write_due(self) except -1:
        """Write at the end of a tick. Hot path."""
        return self.flush()

    cdef int flush(self) except -1:
        """Write what may be written now: as much as the window takes, or one publication to a stalled stream."""
        cdef uint32_t window = 1 if self.stalled else IN_FLIGHT_MAX
        cdef Entry* entry
        cdef double now = self.link.loop.time()
        cdef int64_t start = -1, end = 0
        if not self.link.ready or (self.stalled and now < self.retry_at):
            return 0
        while self.unwritten != self.next and <uint32_t>(self.unwritten - self.first) < window:
            entry = &self.ring[self.unwritten & (self.capacity - 1)]
            self.unwritten += 1
            if entry.completed:
                continue
            if start >= 0 and entry.position != end:
                self.write(start, end)
                start = -1
            if start < 0:
                start = entry.position
            end = entry.position + entry.size
            self.resent += entry.written_at > 0
            entry.written_at = now
        return 0 if start < 0 else self.write(start, end)

    cdef int write(self, int64_t start, int64_t end) except -1:
        cdef int64_t origin = self.end - (self.data.size - self.data_start)  # position of the first byte that is kept
        cdef const uint8_t* at = self.data.data + self.data_start
        return self.link.write_beside(at[start - origin:end - origin])

    # ------------------------------------------------------------ what JetStream says

    cdef int on_answer(self, uint32_t number, Slice answer) except -1:
        """Handle a PubAck, or the reason why there is none. Hot path."""
        cdef Entry* entry
        cdef Py_ssize_t size = len(self.good_answer)
        if not self.holds(number):
            return 0  # it was given up, or was stored when it was sent before
        entry = &self.ring[number & (self.capacity - 1)]
        if answer.size <= size or memcmp(answer.data, <const char*>self.good_answer, size) != 0 \
                or not c"1" <= answer.data[size] <= c"9":
            failure = read_answer(answer.data[:answer.size], self.stream)
            if failure is not None:
                return self.refused(number, failure)
        self.stored += 1
        self.stored_at = self.link.loop.time()
        self.pause = PAUSE_FIRST
        if self.stalled:
            self.stalled = False
            self.link.tick.add(self)
        self.listener.on_stored(entry.session, entry.token)
        return self.complete(number)

    cdef int refused(self, uint32_t number, failure) except -1:
        """Handle that the stream has not taken a publication."""
        # What was in flight when the lane stalled is refused one by one, which says nothing new.
        cdef bint in_flight = <uint32_t>(number - self.first) < <uint32_t>(self.unwritten - self.first)
        cdef bint permanent = failure.permanent
        self.refusals += 1
        if permanent or self.ring[number & (self.capacity - 1)].policy != RETRY_UNTIL_STORED:
            self.give_up(number, permanent)
        return 0 if permanent or not in_flight else self.stall(failure.sentence)

    cdef int stall(self, str trouble) except -1:
        """Go back to the oldest publication and try it alone after a pause. Requests that wait are failed now."""
        cdef uint32_t number = self.first, end = self.next
        cdef Entry* entry
        self.stalled_at = self.link.loop.time()
        if trouble != self.trouble:
            # Once, for a stream that is full again and again.
            log.error("stream does not store, trying on", stream=self.stream, error=trouble)
            self.trouble = trouble
        self.stalled = True
        self.unwritten = self.first
        self.retry_at = self.stalled_at + self.pause
        self.pause = min(2 * self.pause, PAUSE_MAX)
        self.drop_too_large()  # the limit may have fallen while they were in flight
        while number != end:
            entry = &self.ring[number & (self.capacity - 1)]
            if self.holds(number) and entry.policy == FAIL_FAST and entry.written_at == 0:
                self.give_up(number, False)
            number += 1
        return 0

    cdef bint holds(self, uint32_t number) noexcept:
        """Return whether the publication of this number is there, neither stored nor given up. Hot path."""
        return <uint32_t>(number - self.first) < <uint32_t>(self.next - self.first) \
            and not self.ring[number & (self.capacity - 1)].completed

    cdef int give_up(self, uint32_t number, bint permanent) except -1:
        """Forget a publication that is not stored, and tell the listener."""
        cdef Entry entry = self.ring[number & (self.capacity - 1)]
        cdef const uint8_t* start = self.data.data + self.data.size - (self.end - entry.position)
        self.abandoned += 1
        self.ring[number & (self.capacity - 1)].completed = True
        self.listener.on_not_stored(
            self.instance, stored_payload(start, entry.size), entry.session, entry.token, permanent
        )
        return self.complete(number)

    cdef int complete(self, uint32_t number) except -1:
        """Mark a publication as stored or given up, and drop all that are from the front. Hot path."""
        cdef Entry* entry = &self.ring[number & (self.capacity - 1)]
        entry.completed = True
        if self.traces and number in self.traces:
            self.traces.pop(number).confirmed()
        if number != self.first:
            return 0
        while self.first != self.next:
            entry = &self.ring[self.first & (self.capacity - 1)]
            if not entry.completed:
                break
            self.data_start += entry.size
            if self.unwritten == self.first:
                self.unwritten += 1
            self.first += 1
        if self.data_start == self.data.size:
            self.data.clear(DATA_KEEP)
            self.data_start = 0
        elif self.data_start > COMPACT_MIN and self.data_start > self.data.size // 2:
            self.data.consume(self.data_start)
            self.data_start = 0
        if self.unwritten != self.next:
            self.link.tick.add(self)
        if self.full and self.backlog_size() <= self.pending_max // 2:
            self.full = False
            self.listener.on_backlog(False)
        return 0

    # ------------------------------------------------------------ time and connections

    def check(self):
        """Try a stalled stream again, and notice a silent one; call a few times a second."""
        cdef double now = self.link.loop.time()
        cdef double silence
        if self.trouble and not self.stalled and now - self.stalled_at > STEADY_AFTER:
            self.trouble = ""
            log.info("stream stores again", stream=self.stream)
        if self.first == self.next or not self.link.ready:
            return
        if self.unwritten != self.first:
            silence = now - max(self.ring[self.first & (self.capacity - 1)].written_at, self.stored_at)
            if silence > self.ack_timeout:
                self.refusals += 1
                self.stall(SILENT)
        if self.stalled:
            self.give_up_overdue(now)
            self.flush()

    cdef int give_up_overdue(self, double now) except -1:
        """Give up publications that were written long ago, except those that are sent until they are stored."""
        cdef uint32_t number = self.first, end = self.next
        cdef Entry* entry
        while number != end:
            entry = &self.ring[number & (self.capacity - 1)]
            if self.holds(number) and entry.policy != RETRY_UNTIL_STORED \
                    and 0 < entry.written_at < now - self.ack_timeout:
                self.give_up(number, False)
            number += 1
        return 0

    cdef int on_connected(self) except -1:
        """Send again on a new connection what was written to the last one, except at most once."""
        cdef uint32_t number, end = self.next
        cdef Entry* entry
        self.unwritten = self.first
        self.drop_too_large()
        number = self.first
        self.stalled = False
        self.pause = PAUSE_FIRST
        while number != end:
            entry = &self.ring[number & (self.capacity - 1)]
            if self.holds(number) and entry.policy == NO_RETRY and entry.written_at > 0:
                self.abandoned += 1
                if self.traces and number in self.traces:
                    self.traces[number].failed("abandoned")
                self.complete(number)
            number += 1
        return self.flush()

    cdef int drop_too_large(self) except -1:
        """Give up the publications still to be written that are larger than the server takes now.

        What is in flight has been sent, and may be stored.
        """
        cdef uint32_t number = self.unwritten, end = self.next
        cdef Entry* entry
        while number != end:
            entry = &self.ring[number & (self.capacity - 1)]
            if self.holds(number) and self.form.message_size(entry.size) > self.link.payload_max:
                self.give_up(number, True)
            number += 1
        return 0

    cdef Py_ssize_t largest_in_flight(self) noexcept:
        """Return the bytes of the largest message that was written and is neither stored nor given up."""
        cdef uint32_t number = self.first
        cdef Py_ssize_t largest = 0
        while number != self.next:
            if self.holds(number) and self.ring[number & (self.capacity - 1)].written_at > 0:
                largest = max(largest, self.form.message_size(self.ring[number & (self.capacity - 1)].size))
            number += 1
        return largest


cdef class DurableLanes(Receiver):
    """The lanes of a worker, and the receiver of their PubAcks.

    `tag` tells the reply subjects from those of an earlier life of the same replica. `listener` is told of what is
    stored, and receives the ExtensionData that comes to these subjects.
    """

    def __init__(
        self, Link link, Listener listener, streams, str reply_to, Py_ssize_t pending_max, double ack_timeout, tag
    ):
        cdef int number = 0
        if len(streams) > LANES_MAX:
            raise ValueError(f"{len(streams)} durable extension instances; {LANES_MAX} can be")
        self.lanes = []
        self.listener = listener
        self.prefix = f"{reply_to}.{tag:08x}".encode()
        for instance, stream, subject in streams:
            token = f"{tag:08x}{number:02x}"
            self.lanes.append(
                DurableLane(link, listener, instance, stream, subject, reply_to, token, pending_max, ack_timeout)
            )
            number += 1
        if self.lanes:
            link.subscribe(f"{reply_to}.*", self)

    def check(self):
        """See DurableLane.check."""
        for lane in self.lanes:
            lane.check()

    def backlog(self):
        """Return the bytes that no stream has stored yet."""
        return sum(lane.backlog() for lane in self.lanes)

    cdef DurableLane find(self, Slice subject, uint32_t* number):
        """Return the lane of the publication that a reply subject names, and its number; None if none. Hot path."""
        cdef Py_ssize_t size = len(self.prefix)
        cdef uint32_t lane = 0
        if subject.size != size + LANE_DIGITS + NUMBER_DIGITS \
                or memcmp(subject.data, <const char*>self.prefix, size) != 0 \
                or not read_number(subject.data + size, LANE_DIGITS, &lane) or lane >= <uint32_t>len(self.lanes) \
                or not read_number(subject.data + size + LANE_DIGITS, NUMBER_DIGITS, number):
            return None
        return <DurableLane>self.lanes[lane]

    cdef int on_message(self, const ServerMessage* message) except -1:
        """Give a JetStream answer to its lane, and any other message to the listener. Hot path."""
        cdef uint32_t number
        cdef DurableLane lane
        if message.payload.size != 0 and message.payload.data[0] == c"{":
            lane = self.find(message.subject, &number)
            if lane is not None:
                return lane.on_answer(number, message.payload)
        return self.listener.on_message(message)

    cdef bint on_reply_without_responders(self, Slice reply, Slice subject) except -1:
        """Handle that nobody took the publication that a reply subject names. Return False if it names none."""
        cdef uint32_t number
        cdef DurableLane lane = self.find(reply, &number)
        if lane is None:
            return False
        if lane.holds(number):
            lane.refused(number, NO_STREAM)
        return True

    cdef int on_connected(self) except -1:
        """Tell each lane of a new connection."""
        cdef DurableLane lane
        for lane in self.lanes:
            lane.on_connected()
        return 0

    cdef int drop_too_large(self) except -1:
        """Give up the publications that are larger than the server takes now."""
        cdef DurableLane lane
        for lane in self.lanes:
            lane.drop_too_large()
        return 0

    cdef Py_ssize_t largest_in_flight(self) except -1:
        """Return the bytes of the largest message that was written and is neither stored nor given up."""
        cdef DurableLane lane
        cdef Py_ssize_t largest = 0
        for lane in self.lanes:
            largest = max(largest, lane.largest_in_flight())
        return largest
