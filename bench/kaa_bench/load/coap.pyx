"""A load of confirmable CoAP requests.

What lives here is message IDs, tokens, and what a server may answer: a piggybacked response; an empty acknowledgement
and a separate response, which is acknowledged; a reset. A code that is not 2.xx is counted as an error under its name.
The requests are made in packets.py. A run is shorter than EXCHANGE_LIFETIME, so no message ID is used twice.

Source: RFC 7252, sections 4.2, 4.4, 5.2, 5.3.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memcmp, memset

from kaa_bench.load.datagram cimport LATE, TAKEN, UNKNOWN
from kaa_bench.load.loop cimport MALFORMED_RESPONSE, MSG_DONTWAIT, NONE, UNEXPECTED_PACKET, WRONG_IDENTIFIER, send
from kaa_gateway.wire.coap cimport ACK, CON, EMPTY, HEADER_SIZE, RST, WELL_FORMED, read_message

cdef enum:
    TOKEN_SIZE = 4        # bytes; the last two are the message ID of the request
    MESSAGE_IDS = 1 << 16
    FIRST_RESPONSE = 2    # class of a code
    SUCCESS = 2           # class of a code


cdef class CoapLoad(DatagramLoad):
    """Sends requests that begin with a header and a token of four bytes, and fills in message ID and token."""

    def __cinit__(self, sockets, messages, int window=1, **_):
        if self.message_size < HEADER_SIZE + TOKEN_SIZE or any(message[0] & 0x0F != TOKEN_SIZE for message in messages):
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
        message[2] = message[HEADER_SIZE + 2] = <uint8_t>(number >> 8)
        message[3] = message[HEADER_SIZE + 3] = <uint8_t>(number & 0xFF)

    cdef Failure take(self, Connection* connection, const uint8_t* data, Py_ssize_t size) noexcept nogil:
        cdef MessageView view
        cdef uint8_t[HEADER_SIZE] acknowledgement
        cdef int64_t number
        if read_message(data, size, &view) != WELL_FORMED:
            return MALFORMED_RESPONSE
        if view.code != EMPTY and view.code >> 5 < FIRST_RESPONSE:
            return UNEXPECTED_PACKET
        if view.type == ACK or view.type == RST:
            number = self.find(connection, view.message_id)
        elif view.code != EMPTY and view.token.size == TOKEN_SIZE:
            number = self.find(connection, <uint16_t>(view.token.data[2] << 8 | view.token.data[3]))
        else:
            return UNEXPECTED_PACKET
        if number == UNKNOWN:
            return WRONG_IDENTIFIER
        if view.type == CON:
            # A late one too: the server sends it again because it has not heard the first acknowledgement.
            acknowledgement = [0x40 | <uint8_t>ACK << 4, EMPTY, data[2], data[3]]
            send(connection.fd, acknowledgement, HEADER_SIZE, MSG_DONTWAIT)
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
        """The response to an outstanding request. Hot path."""
        cdef const uint8_t* token = self.message(connection, number) + HEADER_SIZE
        if view.token.size != TOKEN_SIZE or memcmp(view.token.data, token, TOKEN_SIZE) != 0:
            return WRONG_IDENTIFIER
        if view.code >> 5 == SUCCESS:
            connection.acknowledged += 1
        else:
            self.refused[view.code] += 1
        self.close_message(connection, number)
        return NONE
