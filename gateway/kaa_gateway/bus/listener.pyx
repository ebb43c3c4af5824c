"""The base classes of what receives from NATS: the receiver of a subscription, and the listener of the link.

All pointers borrow from the caller and end with the call.
"""


cdef class Receiver:
    """The owner of a subscription; a base class whose methods do nothing."""

    cdef int on_message(self, const ServerMessage* message) except -1:
        """Handle a message of the subscription."""
        return 0

    cdef bint on_reply_without_responders(self, Slice reply, Slice subject) except -1:
        """Handle that nobody took the publication that a reply subject names. Return False if it names none.

        `subject` is that of the publication, if the server tells it.
        """
        return False

    cdef int on_connected(self) except -1:
        """Handle a new connection, to which the unconfirmed blocks have been written."""
        return 0


cdef class Listener(Receiver):
    """The owner of the link; a base class whose methods do nothing."""

    cdef int on_confirmed(self, const Acknowledgement* acknowledgements, Py_ssize_t count) except -1:
        """Handle acknowledgements, in order: NATS has everything that was published before them."""
        return 0

    cdef int on_no_responders(self, const Publication* publication) except -1:
        """Handle that the server has dropped a publication, because nobody subscribes to its subject."""
        return 0

    cdef int on_denied(self, const Publication* publication) except -1:
        """Handle that the server has dropped a publication, because the gateway may not publish to its subject."""
        return 0

    cdef int on_abandoned(self, const Publication* publication) except -1:
        """Handle that a publication may have been lost with its connection, and is not sent again."""
        return 0

    cdef int on_too_large(self, const Publication* publication) except -1:
        """Handle that a publication is dropped, because it is larger than the server takes now."""
        return 0

    cdef int on_payload_max(self) except -1:
        """Handle that the server takes less than before."""
        return 0

    cdef Py_ssize_t largest_in_flight(self) except -1:
        """Return the bytes of the largest message written beside the link's blocks and not known to have arrived."""
        return 0

    cdef bint may_send_again(self, const Publication* publication) noexcept:
        """Return whether a publication that may have arrived is sent again after a reconnect (at least once)."""
        return True

    cdef int on_backlog(self, bint full) except -1:
        """Handle that the unconfirmed bytes have passed their bound, or have fallen well below it again."""
        return 0

    cdef int on_stored(self, uint64_t session, uint32_t token) except -1:
        """Handle that a stream has stored the publication with this acknowledgement (durable.pyx)."""
        return 0

    cdef int on_not_stored(
        self, str instance, Slice datum, uint64_t session, uint32_t token, bint permanent
    ) except -1:
        """Handle that a publication is given up that no stream has stored. `permanent`: no further try could help."""
        return 0
