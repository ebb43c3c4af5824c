"""Publications that JetStream confirms: one lane for each durable extension instance, beside the blocks of the link.

The link's own confirmation (PONG) says that a server has read a message; a lane waits until its stream has stored it.
A publication's reply subject is the 4/ESP one with a further token that names the publication, so that a PubAck is
never taken for another's, whatever was lost in between. An extension that only knows core NATS answers there as well:
a PubAck is JSON and begins with `{`, which no ExtensionData does. Consumers of the stream find the plain 4/ESP
reply-to in a header, because JetStream does not keep the reply subject, and the stream drops what it has by its
message ID.

A lane keeps its publications, in order, until they are stored. Whatever keeps a stream from storing (it is full, gone,
without a leader, silent), the lane then tries with one publication at a time, and goes on from the oldest when that is
stored. What the acknowledgements mean to a device is the listener's business.

Source: NATS documentation, "JetStream", publish acknowledgements; ADR-22; design notes in docs/architecture.md.
"""

import msgspec
import structlog

from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memmove

from kaa_gateway.wire.esp cimport CORRELATION_ID_SIZE
from kaa_gateway.wire.text cimport memmem, put_padded, put_text

from kaa_gateway.bus.subjects import REPLY_TO_HEADER

log = structlog.get_logger("gateway.bus")

cdef enum:
    IN_FLIGHT_MAX = 2048            # written and not stored; nats-server buffers 10,000 of a stream, of all publishers
    DIGITS = 8                      # of a number (hexadecimal) and of a total size (decimal)
    DATA_KEEP = 256 * 1024          # bytes of buffer that an empty lane keeps
    COMPACT_MIN = 64 * 1024         # bytes in front of the first publication that are worth moving the rest
    RING_MIN = 256                  # entries
    LANE_DIGITS = 2                 # of a lane in a reply subject
    LANES_MAX = 256
    TOO_LARGE_FOR_STREAM = 10054    # JetStream's error code: it will never be stored

cdef double PAUSE_FIRST = 0.05  # seconds before a stream that stores nothing is tried again; the pause doubles
cdef double PAUSE_MAX = 2.0
cdef double STEADY_AFTER = 5.0  # seconds without trouble after which a stream is said to be well

NO_STREAM = "no stream takes the subject"
SILENT = "the stream does not answer"


cdef inline uint8_t* put_number(uint8_t* at, uint32_t number) noexcept nogil:
    cdef const char* digits = "0123456789abcdef"
    cdef int i
    for i in range(DIGITS):
        at[i] = <uint8_t>digits[(number >> 4 * (DIGITS - 1 - i)) & 0xF]
    return at + DIGITS


cdef bint read_number(const uint8_t* at, int digits, uint32_t* number) noexcept nogil:
    cdef int i
    cdef uint32_t value = 0
    for i in range(digits):
        if c"0" <= at[i] <= c"9":
            value = value << 4 | (at[i] - c"0")
        elif c"a" <= at[i] <= c"f":
            value = value << 4 | (at[i] - c"a" + 10)
        else:
            return False
    number[0] = value
    return True


def read_answer(bytes answer not None, str stream not None):
    """What a JetStream answer says, in full: (None, False) if `stream` has stored, else (what is wrong, for good?)."""
    try:
        said = msgspec.json.decode(answer, type=dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "an answer that is no PubAck", False
    error = said.get("error")
    if error is None and said.get("stream") == stream and isinstance(said.get("seq"), int) and said["seq"] > 0:
        return None, False
    if isinstance(error, dict):
        return str(error.get("description", "error"))[:200], error.get("err_code") == TOO_LARGE_FOR_STREAM
    return "an answer of another stream", False


cdef class DurableLane:
    """The publications of one worker to one stream.

    `reply_to` is the 4/ESP one, `token` the tag and number of the lane; `pending_max` bounds the bytes not yet stored,
    `ack_timeout` the seconds without any PubAck after which a stream counts as silent.
    """

    def __init__(
        self, Link link, Listener listener, str instance, str stream, str subject, str reply_to, str token,
        Py_ssize_t pending_max, double ack_timeout,
    ):
        first = "NATS/1.0\r\nNats-Msg-Id: "
        rest = f"\r\n{REPLY_TO_HEADER}: {reply_to}\r\n\r\n"
        self.link = link
        self.listener = listener
        self.instance = instance
        self.stream = stream
        self.header_size = len(first) + CORRELATION_ID_SIZE + len(rest)
        self.head = f"HPUB {subject} {reply_to}.{token}".encode()
        self.middle = f" {self.header_size} {'0' * DIGITS}\r\n{first}".encode()
        self.rest = rest.encode()
        self.good_answer = f'{{"stream":"{stream}","seq":'.encode()
        self.datum_offset = len(self.head) + DIGITS + len(self.middle) + CORRELATION_ID_SIZE + len(self.rest)
        self.size_offset = len(self.head) + DIGITS + len(f" {self.header_size} ")
        self.pending_max = pending_max
        self.ack_timeout = ack_timeout
        self.flush_callback = self.run_flush
        self.data = Buffer()
        self.pause = PAUSE_FIRST
        self.trouble = ""

    def __dealloc__(self):
        free(self.ring)

    def backlog(self):
        """Bytes that are not stored yet."""
        return self.backlog_size()

    def waiting(self):
        """Publications from the oldest that is not stored on."""
        return <uint32_t>(self.next - self.first)

    # ------------------------------------------------------------ publishing: hot path

    cdef uint8_t* reserve(self, Py_ssize_t datum_size_max) except NULL:
        """Where the datum of the next publication goes; valid until the next call of the lane."""
        return self.data.reserve(self.datum_offset + datum_size_max + 2) + self.datum_offset

    cdef int commit(
        self, Py_ssize_t datum_size, const uint8_t* message_id, uint64_t session, uint32_t token, Effort effort
    ) except -1:
        """The datum has been written where `reserve` said; `message_id` has the size of a correlation ID."""
        cdef uint8_t* at = self.data.data + self.data.size
        cdef Py_ssize_t size = self.datum_offset + datum_size + 2
        if <uint32_t>(self.next - self.first) == self.capacity:
            self.grow_ring()
        at = put_number(put_text(at, self.head), self.next)
        at = put_text(at, self.middle)
        put_padded(self.data.data + self.data.size + self.size_offset, self.header_size + datum_size, DIGITS)
        memcpy(at, message_id, CORRELATION_ID_SIZE)
        at = put_text(at + CORRELATION_ID_SIZE, self.rest)
        memcpy(at + datum_size, b"\r\n", 2)
        self.data.size += size
        self.ring[self.next & (self.capacity - 1)] = Entry(
            session, self.end, 0.0, token, <uint32_t>size, effort, False
        )
        self.end += size
        self.next += 1
        if not self.full and self.backlog_size() > self.pending_max:
            self.full = True
            self.listener.on_backlog(True)
        if not self.flush_scheduled:
            self.schedule_flush()
        return 0

    cdef int trace_last(self, trace, bytes field) except -1:
        """Put a line into the header of the publication that was committed last, and tell `trace` when it is stored."""
        cdef Py_ssize_t size = len(field), header_size = self.header_size + size, offset
        cdef Entry* entry = &self.ring[(self.next - 1) & (self.capacity - 1)]
        cdef Py_ssize_t datum_size = entry.size - self.datum_offset - 2
        cdef uint8_t* start
        cdef uint8_t* at
        cdef bytes digits = str(header_size).encode()  # three, as before: a reply-to has 30 to 200 characters
        if self.traces is None:
            self.traces = {}
        self.traces[<uint32_t>(self.next - 1)] = trace
        if header_size + datum_size > self.link.payload_max:
            return 0
        self.data.reserve(size)
        start = self.data.data + self.data.size - entry.size
        offset = self.datum_offset - 2  # before the blank line
        at = start + offset
        memmove(at + size, at, <size_t>(entry.size - offset))
        put_text(at, field)
        put_padded(start + self.size_offset, header_size + datum_size, DIGITS)
        put_text(start + self.size_offset - 1 - len(digits), digits)
        entry.size += <uint32_t>size
        self.end += size
        self.data.size += size
        return 0

    cdef int grow_ring(self) except -1:
        """Room for twice as many entries; each keeps its number."""
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

    cdef int schedule_flush(self) except -1:
        self.flush_scheduled = True
        self.link.loop.call_soon(self.flush_callback)
        return 0

    def run_flush(self):
        """The end of a tick."""
        self.flush_scheduled = False
        self.flush()

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
            if entry.settled:
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

    cdef int receive(self, uint32_t number, Slice answer) except -1:
        """A PubAck, or why there is none. Hot path."""
        cdef Entry* entry
        cdef Py_ssize_t size = len(self.good_answer)
        cdef bint for_good = False
        if not self.holds(number):
            return 0  # it was given up, or stored when it was sent before
        entry = &self.ring[number & (self.capacity - 1)]
        if answer.size <= size or memcmp(answer.data, <const char*>self.good_answer, size) != 0 \
                or not c"1" <= answer.data[size] <= c"9":
            trouble, for_good = read_answer(answer.data[:answer.size], self.stream)
            if trouble is not None:
                return self.refused(number, trouble, for_good)
        self.stored += 1
        self.stored_at = self.link.loop.time()
        self.pause = PAUSE_FIRST
        if self.stalled:
            self.stalled = False
            if not self.flush_scheduled:
                self.schedule_flush()
        self.listener.on_stored(entry.session, entry.token)
        return self.settle(number)

    cdef int refused(self, uint32_t number, str trouble, bint for_good) except -1:
        """The stream has not taken a publication."""
        # What was in flight when the lane stalled is refused one by one, which says nothing new.
        cdef bint in_flight = <uint32_t>(number - self.first) < <uint32_t>(self.unwritten - self.first)
        self.refusals += 1
        if for_good or self.ring[number & (self.capacity - 1)].effort != UNTIL_STORED:
            self.give_up(number, for_good)
        return 0 if for_good or not in_flight else self.stall(trouble)

    cdef int stall(self, str trouble) except -1:
        """Go back to the oldest publication, and try it alone after a pause. Who waits for an answer is told now."""
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
        while number != end:
            entry = &self.ring[number & (self.capacity - 1)]
            if self.holds(number) and entry.effort == PROMPT and entry.written_at == 0:
                self.give_up(number, False)
            number += 1
        return 0

    cdef bint holds(self, uint32_t number) noexcept:
        """Whether there is a publication of this number that is neither stored nor given up. Hot path."""
        return <uint32_t>(number - self.first) < <uint32_t>(self.next - self.first) \
            and not self.ring[number & (self.capacity - 1)].settled

    cdef int give_up(self, uint32_t number, bint for_good) except -1:
        """Tell whoever waits for a publication that it is not stored, and forget it."""
        cdef Entry entry = self.ring[number & (self.capacity - 1)]
        cdef const uint8_t* start = self.data.data + self.data.size - (self.end - entry.position)
        # Behind the header, which ends in the only blank line and is longer where a message is traced.
        cdef const uint8_t* datum = <const uint8_t*>memmem(start, entry.size, b"\r\n\r\n", 4) + 4
        self.abandoned += 1
        self.ring[number & (self.capacity - 1)].settled = True
        self.listener.on_not_stored(
            self.instance, Slice(datum, start + entry.size - 2 - datum), entry.session, entry.token, for_good
        )
        return self.settle(number)

    cdef int settle(self, uint32_t number) except -1:
        """A publication is done with: drop what is done with from the front. Hot path."""
        cdef Entry* entry = &self.ring[number & (self.capacity - 1)]
        entry.settled = True
        if self.traces and number in self.traces:
            self.traces.pop(number).confirmed()
        if number != self.first:
            return 0
        while self.first != self.next:
            entry = &self.ring[self.first & (self.capacity - 1)]
            if not entry.settled:
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
        if self.unwritten != self.next and not self.flush_scheduled:
            self.schedule_flush()
        if self.full and self.backlog_size() <= self.pending_max // 2:
            self.full = False
            self.listener.on_backlog(False)
        return 0

    # ------------------------------------------------------------ time and connections

    def check(self):
        """Call a few times a second: tries a stalled stream again, and notices a silent one."""
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
        """Give up what was written long ago to a stream that has not answered, unless it is sent until it is stored."""
        cdef uint32_t number = self.first, end = self.next
        cdef Entry* entry
        while number != end:
            entry = &self.ring[number & (self.capacity - 1)]
            if self.holds(number) and entry.effort != UNTIL_STORED \
                    and 0 < entry.written_at < now - self.ack_timeout:
                self.give_up(number, False)
            number += 1
        return 0

    cdef int on_connected(self) except -1:
        """There is a new connection: send again what was written to the one before, except at most once."""
        cdef uint32_t number = self.first, end = self.next
        cdef Entry* entry
        self.unwritten = self.first
        self.stalled = False
        self.pause = PAUSE_FIRST
        while number != end:
            entry = &self.ring[number & (self.capacity - 1)]
            if self.holds(number) and entry.effort == ONCE and entry.written_at > 0:
                self.abandoned += 1
                if self.traces and number in self.traces:
                    self.traces[number].failed("abandoned")
                self.settle(number)
            number += 1
        return self.flush()


cdef class DurableLanes:
    """The lanes of a worker. `tag` tells its reply subjects from those of an earlier life of the same replica."""

    def __init__(
        self, Link link, Listener listener, streams, str reply_to, Py_ssize_t pending_max, double ack_timeout, tag
    ):
        cdef int number = 0
        if len(streams) > LANES_MAX:
            raise ValueError(f"{len(streams)} durable extension instances; {LANES_MAX} can be")
        self.lanes = []
        self.prefix = f"{reply_to}.{tag:08x}".encode()
        for instance, stream, subject in streams:
            token = f"{tag:08x}{number:02x}"
            self.lanes.append(
                DurableLane(link, listener, instance, stream, subject, reply_to, token, pending_max, ack_timeout)
            )
            number += 1

    def check(self):
        """See DurableLane.check."""
        for lane in self.lanes:
            lane.check()

    def backlog(self):
        """Bytes that no stream has stored yet."""
        return sum(lane.backlog() for lane in self.lanes)

    cdef DurableLane find(self, Slice subject, uint32_t* number):
        """The lane and the number of the publication that a reply subject names, or None. Hot path."""
        cdef Py_ssize_t size = len(self.prefix)
        cdef uint32_t lane = 0
        if subject.size != size + LANE_DIGITS + DIGITS or memcmp(subject.data, <const char*>self.prefix, size) != 0 \
                or not read_number(subject.data + size, LANE_DIGITS, &lane) or lane >= <uint32_t>len(self.lanes) \
                or not read_number(subject.data + size + LANE_DIGITS, DIGITS, number):
            return None
        return <DurableLane>self.lanes[lane]

    cdef bint receive(self, const ServerMessage* message) except -1:
        """Take a message that is no ExtensionData; False if it is none of JetStream's to us either. Hot path."""
        cdef uint32_t number
        cdef DurableLane lane
        if message.payload.size == 0 or message.payload.data[0] != c"{":
            return False
        lane = self.find(message.subject, &number)
        if lane is None:
            return False
        lane.receive(number, message.payload)
        return True

    cdef bint no_responders(self, Slice subject) except -1:
        """Nobody took the publication that a reply subject names; False if it names none."""
        cdef uint32_t number
        cdef DurableLane lane = self.find(subject, &number)
        if lane is None:
            return False
        if lane.holds(number):
            lane.refused(number, NO_STREAM, False)
        return True

    cdef int on_connected(self) except -1:
        cdef DurableLane lane
        for lane in self.lanes:
            lane.on_connected()
        return 0
