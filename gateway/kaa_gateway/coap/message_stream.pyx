"""The reliable transport of one peer, as its outbox sees it."""


cdef class MessageStream(ProtocolCore):
    """A connection that carries CoAP messages."""

    cdef int send_message(self, const uint8_t* datagram, Py_ssize_t size) except -1:
        """Send a message that was encoded as a datagram; its type and message ID do not matter. Hot path."""
        return 0
