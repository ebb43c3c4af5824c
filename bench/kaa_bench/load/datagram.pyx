"""Loads over UDP (CoAP, MQTT-SN, KP/UDP): a datagram a message, answered in any order, retransmitted after silence.

A connection is a connected socket with a window of messages. After `silence` seconds without a datagram from the
server, unanswered messages are sent again: the same bytes with the same message ID, so that they take effect once. The
messages are made in packets.py.

Source: RFC 7252, sections 4.2, 4.4, 5.2, 5.3; docs/kp-over-udp.md; MQTT-SN 1.2; recvmmsg(2), udp(7) for UDP_SEGMENT.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from kaa_bench.load.loop cimport (
    EPOLLIN, EPOLLOUT, IDENTIFIERS_USED_UP, MALFORMED_RESPONSE, MSG_DONTWAIT, NONE, SOCKET_ERROR, UNEXPECTED_PACKET,
    WRONG_IDENTIFIER, send,
)
from kaa_gateway.wire.aead import load as load_cipher

from kaa_gateway.wire.aead cimport TAG_SIZE, seal, unseal
from kaa_gateway.wire.buffer cimport Slice
from kaa_gateway.wire.coap cimport (
    ACK as COAP_ACK, CON, EMPTY, HEADER_SIZE as COAP_HEADER_SIZE, RST, WELL_FORMED as COAP_WELL_FORMED, read_message,
)
from kaa_gateway.wire.mqtt_sn cimport PUBACK as SN_PUBACK, PUBLISH as SN_PUBLISH, REGISTER as SN_REGISTER
from kaa_gateway.wire.kpudp cimport (
    ACK as KPUDP_ACK, CONFIRMED_DATA, HEAD_SIZE, HEADER_SIZE as KPUDP_HEADER_SIZE, MAGIC, PING, PING_DATA_SIZE_MAX,
    PONG, RESET, VERSION, WELL_FORMED as KPUDP_WELL_FORMED, put_header, put_probe, read_frame,
)
from kaa_gateway.wire.kpudp_secure cimport (
    SEALED, SEALED_HEADER_SIZE, SECURE_OVERHEAD, SECURE_WELL_FORMED, SecureHeader, make_nonce, put_sealed_header,
    read_secure,
)

cdef extern from "<sys/socket.h>" nogil:
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout)
    int MSG_TRUNC

cdef enum:
    CHECK_PERIOD = 50_000_000  # ns between checks for silent connections
    IDENTIFIERS = 1 << 16
    FIRST = 1                  # number; 0 is for a message that connecting has sent
    SEND_SIZE_MAX = 65000      # bytes a system call
    SOL_UDP = 17
    UDP_SEGMENT = 103          # udp(7); newer than the C library's header on some systems
    WINDOW_MAX = 1024          # messages; answers may be late by half the identifiers

# CoAP
cdef enum:
    TOKEN_SIZE = 4        # bytes; the last two are the message ID of the request
    MESSAGE_IDS = 1 << 16
    FIRST_RESPONSE = 2    # class of a code
    SUCCESS = 2           # class of a code

# MQTT-SN
cdef enum:
    SN_ID_OFFSET = 5      # bytes before the message ID of a PUBLISH with a length of one byte
    SN_PUBACK_SIZE = 7
    SN_LONG_LENGTH = 1
    SN_LONG_MORE = 2      # bytes of a longer length

# KP/UDP
cdef enum:
    EPOCH_OFFSET = 1
    MESSAGE_ID_OFFSET = KPUDP_HEADER_SIZE + 1
    SEALED_ROOM = SECURE_OVERHEAD - KPUDP_HEADER_SIZE   # what encryption adds to a datagram


cdef class DatagramLoad(Load):
    """The base of the loads over UDP. `silence` is in seconds."""

    def __cinit__(self, sockets, messages, int window=1, *, double silence=1.0, **_):
        cdef int index
        if window > WINDOW_MAX:
            raise ValueError(f"the window is at most {WINDOW_MAX}")
        self.silence = <int64_t>(silence * 1e9)
        self.numbers = (<int64_t>1) << 62
        self.windows = <Window*>calloc(self.count, sizeof(Window))
        self.states = <uint8_t*>calloc(self.count, self.window)
        self.received_bytes = <uint8_t*>malloc(BATCH * DATAGRAM_SIZE)
        if self.windows == NULL or self.states == NULL or self.received_bytes == NULL:
            raise MemoryError
        if self.message_size > SEND_SIZE_MAX:
            raise ValueError(f"a message is at most {SEND_SIZE_MAX} bytes")
        for index in range(self.count):
            if self.window > 1:
                self.sockets[index].setsockopt(SOL_UDP, UDP_SEGMENT, <int>self.message_size)
            self.windows[index].states = self.states + index * self.window
            self.windows[index].oldest = self.windows[index].next = FIRST
        memset(self.received, 0, sizeof(self.received))
        for index in range(BATCH):
            self.received_at[index] = iovec(self.received_bytes + index * DATAGRAM_SIZE, DATAGRAM_SIZE)
            self.received[index].msg_hdr.msg_iov = &self.received_at[index]
            self.received[index].msg_hdr.msg_iovlen = 1

    def __dealloc__(self):
        free(self.windows)
        free(self.states)
        free(self.received_bytes)

    # ---------------------------------------------------------------- implemented by protocols

    cdef void stamp(self, Connection* connection, int64_t number, uint8_t* message) noexcept nogil:
        """Write into the copy at `message` what differs from message to message. Hot path."""

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Read a datagram, which is borrowed for the call; count successes, and close answered messages. Hot path."""
        return UNEXPECTED_PACKET

    # ---------------------------------------------------------------- the window

    cdef uint8_t* message(self, Connection* connection, int64_t number) noexcept nogil:
        return connection.ring + number % self.window * self.message_size

    cdef uint8_t* state(self, Connection* connection, int64_t number) noexcept nogil:
        """Return the state of a message of the window."""
        return &self.windows[connection.index].states[number % self.window]

    cdef int64_t find(self, Connection* connection, uint16_t identifier) noexcept nogil:
        """Return the number of the unanswered message with this ID, or LATE, or UNKNOWN. Hot path."""
        cdef Window* window = &self.windows[connection.index]
        cdef int64_t ahead = <uint16_t>(identifier - <uint16_t>(window.oldest & 0xFFFF))
        if ahead < window.next - window.unsent - window.oldest:
            return window.oldest + ahead if self.state(connection, window.oldest + ahead)[0] != ANSWERED else LATE
        ahead -= IDENTIFIERS
        return LATE if ahead >= -window.oldest and ahead >= -IDENTIFIERS // 2 else UNKNOWN

    cdef void close_message(self, Connection* connection, int64_t number) noexcept nogil:
        """Mark a message of the window as answered. Hot path."""
        cdef Window* window = &self.windows[connection.index]
        self.timed(connection, number - (window.next - connection.issued))
        self.state(connection, number)[0] = ANSWERED
        while window.oldest < window.next and self.state(connection, window.oldest)[0] == ANSWERED:
            window.oldest += 1

    # ---------------------------------------------------------------- the socket

    cdef void begin(self, Connection* connection) noexcept nogil:
        self.windows[connection.index].last_received = self.at

    cdef int64_t written(self, Connection* connection) noexcept nogil:
        return connection.issued - self.windows[connection.index].unsent

    cdef void ready(self, Connection* connection, uint32_t events) noexcept nogil:
        cdef int index, count
        cdef Failure failure
        if events & ~<uint32_t>EPOLLOUT:
            count = recvmmsg(connection.fd, self.received, <unsigned int>min(self.window, BATCH), MSG_DONTWAIT, NULL)
            if count < 0 and errno != EAGAIN and errno != EINTR:
                self.give_up(connection, SOCKET_ERROR)
                return
            if count > 0:
                self.windows[connection.index].last_received = self.at
            for index in range(count):
                self.moved += self.received[index].msg_len
                failure = MALFORMED_RESPONSE
                if not self.received[index].msg_hdr.msg_flags & MSG_TRUNC:
                    failure = self.take(
                        connection, <const uint8_t*>self.received_at[index].iov_base, self.received[index].msg_len
                    )
                if failure != NONE:
                    self.give_up(connection, failure)
                    return
        if connection.working:
            self.fill(connection)

    cdef void fill(self, Connection* connection) noexcept nogil:
        cdef Window* window = &self.windows[connection.index]
        cdef int64_t room = self.allowed(connection, window.next - window.oldest)
        room = min(room, self.numbers - window.next)
        self.remaining -= room
        while room > 0:
            self.stamp(connection, window.next, self.message(connection, window.next))
            self.state(connection, window.next)[0] = SENT
            window.next += 1
            window.unsent += 1
            connection.issued += 1
            room -= 1
        if window.unsent:
            self.send_unsent(connection)
        if connection.fd < 0:
            return
        if window.oldest == window.next:
            if self.remaining == 0:
                self.finish(connection)
            elif window.next == self.numbers:
                self.give_up(connection, IDENTIFIERS_USED_UP)
                return
        self.watch(connection, <uint32_t>(EPOLLIN | EPOLLOUT) if window.unsent else <uint32_t>EPOLLIN)

    cdef void send_unsent(self, Connection* connection) noexcept nogil:
        """Send those of the issued messages that the socket takes. Hot path.

        Messages are contiguous in the ring, and the kernel cuts the bytes of one call into datagrams.
        """
        cdef Window* window = &self.windows[connection.index]
        cdef int64_t first, count
        cdef ssize_t sent
        while window.unsent:
            first = window.next - window.unsent
            count = min(min(window.unsent, <int64_t>BATCH), self.window - first % self.window)
            count = min(count, <int64_t>(SEND_SIZE_MAX // self.message_size))
            sent = send(
                connection.fd, self.message(connection, first), <size_t>(count * self.message_size), MSG_DONTWAIT
            )
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN:
                    self.give_up(connection, SOCKET_ERROR)
                return
            window.unsent -= count
            self.moved += sent

    cdef void tick(self) noexcept nogil:
        cdef Connection* connection
        cdef int index
        if self.at - self.checked_at < CHECK_PERIOD:
            return
        self.checked_at = self.at
        for index in range(self.count):
            connection = &self.connections[index]
            if connection.working and self.at - self.windows[index].last_received >= self.silence:
                self.windows[index].last_received = self.at
                self.send_again(connection)

    cdef void send_again(self, Connection* connection) noexcept nogil:
        """Send the unanswered messages of the window again, as far as the socket takes them.

        These bytes do not count as movement: a server that stays silent is a stall.
        """
        cdef Window* window = &self.windows[connection.index]
        cdef int64_t number
        for number in range(window.oldest, window.next - window.unsent):
            if self.state(connection, number)[0] == SENT:
                if send(connection.fd, self.message(connection, number), <size_t>self.message_size, MSG_DONTWAIT) > 0:
                    self.retransmitted += 1


cdef class CoapLoad(DatagramLoad):
    """Sends requests that begin with a header and a token of four bytes, and fills in message ID and token."""

    def __cinit__(self, sockets, messages, int window=1, **_):
        if self.message_size < COAP_HEADER_SIZE + TOKEN_SIZE or any(
            message[0] & 0x0F != TOKEN_SIZE for message in messages
        ):
            raise ValueError(f"a request begins with a header and a token of {TOKEN_SIZE} bytes")
        self.numbers = MESSAGE_IDS

    cdef dict refusals(self):
        errors = {
            f"code {code >> 5}.{code & 0x1F:02d}": self.refused[code] for code in range(CODES) if self.refused[code]
        }
        if self.reset:
            errors["reset"] = self.reset
        memset(self.refused, 0, sizeof(self.refused))
        self.reset = 0
        return errors

    cdef void stamp(self, Connection* connection, int64_t number, uint8_t* message) noexcept nogil:
        message[2] = message[COAP_HEADER_SIZE + 2] = <uint8_t>(number >> 8)
        message[3] = message[COAP_HEADER_SIZE + 3] = <uint8_t>(number & 0xFF)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        cdef MessageView view
        cdef uint8_t[COAP_HEADER_SIZE] acknowledgement
        cdef int64_t number
        if read_message(data, size, &view) != COAP_WELL_FORMED:
            return MALFORMED_RESPONSE
        if view.code != EMPTY and view.code >> 5 < FIRST_RESPONSE:
            return UNEXPECTED_PACKET
        if view.type == COAP_ACK or view.type == RST:
            number = self.find(connection, view.message_id)
        elif view.code != EMPTY and view.token.size == TOKEN_SIZE:
            number = self.find(connection, <uint16_t>(view.token.data[2] << 8 | view.token.data[3]))
        else:
            return UNEXPECTED_PACKET
        if number == UNKNOWN:
            return WRONG_IDENTIFIER
        if view.type == CON:
            # A late one too: the server repeats it because it has not received the first acknowledgement.
            acknowledgement = [0x40 | <uint8_t>COAP_ACK << 4, EMPTY, data[2], data[3]]
            send(connection.fd, acknowledgement, COAP_HEADER_SIZE, MSG_DONTWAIT)
        if number == LATE:
            return NONE
        if view.type == RST:
            self.reset += 1
            self.close_message(connection, number)
        elif view.code == EMPTY:
            self.state(connection, number)[0] = TAKEN
        else:
            return self.answered(connection, number, &view)
        return NONE

    cdef Failure answered(self, Connection* connection, int64_t number, const MessageView* view) noexcept nogil:
        """Handle the response to an outstanding request. Hot path."""
        cdef const uint8_t* token = self.message(connection, number) + COAP_HEADER_SIZE
        if view.token.size != TOKEN_SIZE or memcmp(view.token.data, token, TOKEN_SIZE) != 0:
            return WRONG_IDENTIFIER
        if view.code >> 5 == SUCCESS:
            connection.acknowledged += 1
        else:
            self.refused[view.code] += 1
        self.close_message(connection, number)
        return NONE


cdef class MqttSnLoad(DatagramLoad):
    """Sends PUBLISH at QoS 1 with a topic ID, and fills in the message ID."""

    def __cinit__(self, sockets, messages, int window=1, **_):
        self.id_offset = SN_ID_OFFSET + (SN_LONG_MORE if messages[0][0] == SN_LONG_LENGTH else 0)
        if self.message_size < self.id_offset + 2 or any(
            message[self.id_offset - 4] != SN_PUBLISH for message in messages
        ):
            raise ValueError("a message is a PUBLISH")
        self.numbers = IDENTIFIERS  # 0 is no message ID

    cdef dict refusals(self):
        errors = {f"return code {code}": self.refused[code] for code in range(CODES) if self.refused[code]}
        if self.error_responses:
            errors["error response"] = self.error_responses
        memset(self.refused, 0, sizeof(self.refused))
        self.error_responses = 0
        return errors

    cdef void stamp(self, Connection* connection, int64_t number, uint8_t* message) noexcept nogil:
        message[self.id_offset] = <uint8_t>(number >> 8 & 0xFF)
        message[self.id_offset + 1] = <uint8_t>(number & 0xFF)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        cdef int64_t number
        if size > 1 and data[0] == size and data[1] == SN_REGISTER:
            self.error_responses += 1
            return NONE
        if size != SN_PUBACK_SIZE or data[0] != SN_PUBACK_SIZE or data[1] != SN_PUBACK:
            return UNEXPECTED_PACKET
        number = self.find(connection, <uint16_t>(data[4] << 8 | data[5]))
        if number == UNKNOWN:
            return WRONG_IDENTIFIER
        if number == LATE:
            return NONE
        if data[6] == 0:
            connection.acknowledged += 1
        else:
            self.refused[data[6]] += 1
        self.close_message(connection, number)
        return NONE


cdef class KpUdpLoad(DatagramLoad):
    """Sends datagrams of one CONFIRMED DATA frame, all of one epoch, and fills in the message ID."""

    def __cinit__(self, sockets, messages, int window=1, **_):
        if self.message_size <= KPUDP_HEADER_SIZE + HEAD_SIZE or any(
            message[KPUDP_HEADER_SIZE] != CONFIRMED_DATA or message[EPOCH_OFFSET] != messages[0][EPOCH_OFFSET]
            for message in messages
        ):
            raise ValueError("a message is a datagram with a CONFIRMED DATA frame, all of one epoch")
        self.epoch = messages[0][EPOCH_OFFSET]

    cdef dict refusals(self):
        errors = {f"reset {reason}": self.resets[reason] for reason in range(REASON_MAX + 1) if self.resets[reason]}
        memset(self.resets, 0, sizeof(self.resets))
        return errors

    cdef void stamp(self, Connection* connection, int64_t number, uint8_t* message) noexcept nogil:
        message[MESSAGE_ID_OFFSET] = <uint8_t>(number >> 8 & 0xFF)
        message[MESSAGE_ID_OFFSET + 1] = <uint8_t>(number & 0xFF)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        if size <= KPUDP_HEADER_SIZE or data[0] != (MAGIC << 4 | VERSION) or data[EPOCH_OFFSET] != self.epoch:
            return MALFORMED_RESPONSE
        return self.take_frames(connection, data + KPUDP_HEADER_SIZE, size - KPUDP_HEADER_SIZE)

    cdef Failure take_frames(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        """Read the frames of a datagram. Hot path."""
        cdef Frame frame
        cdef Py_ssize_t at = 0, consumed = 0
        cdef int64_t number
        while at < size:
            if read_frame(data + at, size - at, &frame, &consumed) != KPUDP_WELL_FORMED:
                return MALFORMED_RESPONSE
            at += consumed
            if frame.type == PING:
                self.pong(connection, &frame)
                continue
            if frame.type != KPUDP_ACK and frame.type != RESET:
                return UNEXPECTED_PACKET
            number = self.find(connection, frame.message_id)
            if number == UNKNOWN or (frame.type == RESET and frame.status > REASON_MAX):
                return WRONG_IDENTIFIER if number == UNKNOWN else MALFORMED_RESPONSE
            if number < 0:
                continue
            if frame.type == KPUDP_ACK:
                connection.acknowledged += 1
            else:
                self.resets[frame.status] += 1
            self.close_message(connection, number)
        return NONE

    cdef void pong(self, Connection* connection, const Frame* frame) noexcept nogil:
        cdef uint8_t[KPUDP_HEADER_SIZE + HEAD_SIZE + PING_DATA_SIZE_MAX] out
        cdef uint8_t* end = put_probe(put_header(out, self.epoch), PONG, frame.message_id, frame.payload, False)
        send(connection.fd, out, end - out, MSG_DONTWAIT)


cdef class SealedKpUdpLoad(KpUdpLoad):
    """Sends the datagrams of a KpUdpLoad encrypted, in sessions that are open: docs/kp-over-udp-secure.md.

    A message ends with SEALED_ROOM bytes, which its frames do not use. `sessions` are (connection ID, next counter,
    keys of 88 bytes) by connection.
    """

    def __cinit__(self, sockets, messages, int window=1, *, sessions, **_):
        cdef const uint8_t* keys
        cdef Sealing* session
        if self.message_size > DATAGRAM_SIZE or len({bytes(message) for message in messages}) != 1:
            raise ValueError("all messages are the same, and fit a datagram")
        load_cipher()
        memcpy(self.frames, <const uint8_t*><bytes>messages[0] + KPUDP_HEADER_SIZE, self.message_size - SECURE_OVERHEAD)
        self.sessions = <Sealing*>calloc(self.count, sizeof(Sealing))
        if self.sessions == NULL:
            raise MemoryError
        for index, (connection_id, sent, secrets) in enumerate(sessions):
            session = &self.sessions[<int>index]
            session.connection_id = int.from_bytes(connection_id, "big")
            session.sent = sent
            keys = secrets
            memcpy(session.key, keys, KEY_SIZE)
            memcpy(session.iv, keys + KEY_SIZE, NONCE_SIZE)
            memcpy(session.server_key, keys + KEY_SIZE + NONCE_SIZE, KEY_SIZE)
            memcpy(session.server_iv, keys + 2 * KEY_SIZE + NONCE_SIZE, NONCE_SIZE)

    def __dealloc__(self):
        free(self.sessions)

    cdef void stamp(self, Connection* connection, int64_t number, uint8_t* message) noexcept nogil:
        cdef Sealing* session = &self.sessions[connection.index]
        cdef Py_ssize_t size = self.message_size - SECURE_OVERHEAD
        cdef uint8_t[DATAGRAM_SIZE] plain
        cdef uint8_t[NONCE_SIZE] nonce
        memcpy(plain, self.frames, <size_t>size)
        plain[1] = <uint8_t>(number >> 8 & 0xFF)
        plain[2] = <uint8_t>(number & 0xFF)
        put_sealed_header(message, SEALED, session.connection_id, session.sent)
        make_nonce(nonce, session.iv, session.sent)
        session.sent += 1
        seal(
            session.key, nonce, Slice(message, SEALED_HEADER_SIZE), plain, size, message + SEALED_HEADER_SIZE
        )

    cdef void send_again(self, Connection* connection) noexcept nogil:
        """Seal the unanswered messages anew: a datagram counts once."""
        cdef Window* window = &self.windows[connection.index]
        cdef int64_t number
        for number in range(window.oldest, window.next - window.unsent):
            if self.state(connection, number)[0] == SENT:
                self.stamp(connection, number, self.message(connection, number))
        DatagramLoad.send_again(self, connection)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        cdef Sealing* session = &self.sessions[connection.index]
        cdef SecureHeader header
        cdef uint8_t[DATAGRAM_SIZE] plain
        cdef uint8_t[NONCE_SIZE] nonce
        if read_secure(data, size, &header) != SECURE_WELL_FORMED or header.type != SEALED:
            return MALFORMED_RESPONSE
        make_nonce(nonce, session.server_iv, header.counter)
        if not unseal(session.server_key, nonce, header.header, header.sealed.data, header.sealed.size, plain):
            return MALFORMED_RESPONSE
        return self.take_frames(connection, plain, header.sealed.size - TAG_SIZE)
