"""The interfaces between a protocol core and the transport that carries its bytes.

A protocol core (MQTT, HTTP) is given the bytes that a peer sends, and appends the bytes that answer them to its output
buffer. It never touches a socket: it asks its transport to write, to pause reading, to close. Neither knows the class
of the other, so a core runs over TCP, TLS or WebSocket alike.

What lives here: the two interfaces, and that of the server that makes protocol cores. What does not: sockets
(tcp_connection.pyx, tls.pyx), WebSocket (websocket.pyx).
"""

from kaa_gateway.net.proxy cimport describe_peer


cdef class Transport:
    """The transport of one connection, as its protocol core sees it."""

    cdef int wake(self) except -1:
        """Write the core's output at the end of this tick of the event loop. Hot path."""
        return 0

    cdef int send_message(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Send a message that the peer gets as one, where the transport keeps messages apart."""
        raise NotImplementedError

    cdef int pause_reading(self) except -1:
        """Stop reading until `resume_reading`. The kernel's buffers fill up, and the peer feels back-pressure."""
        return 0

    cdef int resume_reading(self) except -1:
        """Read again."""
        return 0

    cdef int close(self) except -1:
        """Write the core's output, then close the connection."""
        return 0

    cdef int close_now(self) except -1:
        """Write the core's output, and close before this returns. A peer that does not read gets a reset instead.

        Not to be called from within the core's `receive`.
        """
        return 0

    cdef bytes peer_address(self):
        """Return the sockaddr of the client, which a trusted proxy may have told; empty if it is not known."""
        return b""

    cdef object tls_version(self):
        """Return the version of TLS, such as "TLSv1.3"; None without TLS."""
        return None

    cdef dict describe(self):
        """Return what an operator may see of the connection, as JSON values."""
        return {**describe_peer(self.peer_address(), self.proxied), "tls": self.tls_version()}


cdef class ProtocolServer:
    """What the connections of a protocol share; a base class. It makes the protocol core of each new connection."""

    cpdef ProtocolCore connect(self, Transport transport):
        """Return the protocol core of a new connection."""
        raise NotImplementedError


cdef class ProtocolCore:
    """The protocol of one connection: bytes in, bytes out."""

    def __cinit__(self):
        self.output = Buffer.__new__(Buffer)

    cdef uint64_t packets(self) noexcept:
        """Return how many packets or requests have been received."""
        return self.taken

    cdef bint is_admitted(self) noexcept:
        """Return whether the peer is past the half-open state."""
        return self.admitted

    cdef int add_unread_time(self, double seconds) except -1:
        """Note that the transport does not read for so long: silence in that time is not the peer's."""
        self.unread_time += seconds
        return 0

    cdef double take_unread_time(self) noexcept:
        """Return the seconds without reading that were noted since the last call, for time-outs to leave out."""
        cdef double seconds = self.unread_time
        self.unread_time = 0
        return seconds

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Handle received bytes, which are borrowed for the call. ProtocolError closes the connection. Hot path."""
        return 0

    cdef int end_of_message(self) except -1:
        """Handle what was received as one message, where the transport keeps messages apart."""
        return 0

    cdef int end_of_input(self) except -1:
        """Close the connection after the answers that are still due: the peer has closed its sending side.

        Called once by the transport; a core may call it again whenever an answer has been sent.
        """
        self.input_ended = True
        return self.transport.close()

    cdef int finish_output(self, bint closing) except -1:
        """Complete the output before it is written, once a tick. After `closing`, nothing more is written. Hot path."""
        return 0

    cdef int resume(self) except -1:
        """Handle the bytes that were kept back: the uplink takes messages again."""
        return 0

    cdef int lost(self) except -1:
        """Release everything: the connection is closed, and nothing more can be written."""
        return 0

    cdef int end(self, str reason) except -1:
        """Close the connection, and handle nothing more from this client. `reason` is a code of ours."""
        return self.transport.close()

    cdef int explain(self, str reason) except -1:
        """Tell the peer, where the protocol can, which violation ends its connection. `reason` is a code of ours."""
        return 0

    cdef int explain_stop(self) except -1:
        """Tell the peer, where the protocol can, that its connection ends because the gateway stops."""
        return 0

    cdef bint redirect(self, bint permanent) except -1:
        """Send the client to another server, and close after the answers that are due. Return False if it cannot.

        `permanent` says that it is to stay there.
        """
        return False

    cdef int check(self, double now) except -1:
        """Apply time-outs; called about once a second with the loop's time. ProtocolError closes the connection."""
        return 0
