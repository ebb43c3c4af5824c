"""A session in the directory as a worker has it: what SessionDirectory calls, and a claim that it waits for."""


cdef class PendingClaim:
    """A claim whose answer has not come yet."""


cdef class DirectoryEntry:
    """A session in the directory; a base class whose methods do nothing."""

    cdef bint is_wanted(self) noexcept:
        """Return whether a client waits for the session on this worker, or has it."""
        return False

    cdef bint holds(self) noexcept:
        """Return whether there is a session on this worker."""
        return False

    cdef int lose(self) except -1:
        """End the connection that waits for the claim: the client has made another one, on another worker."""
        return 0

    cdef int hand_over(self, bytes state, uint64_t number) except -1:
        """End the session here, and call SessionDirectory.give, now or soon: its client has connected elsewhere.

        `state` is None, or has come from a third worker while the entry was claimed here.
        """
        return 0

    cdef int resolved(self, bytes state, uint64_t number) except -1:
        """Go on with the CONNECT: the state is what another worker had, from a CONNECT with this number, or None."""
        return 0

    cdef int supersede(self) except -1:
        """Discard the session: another worker has a newer one."""
        return 0

    cdef bint receive_forwarded(self, message) except -1:
        """Deliver a message that has come to a former worker of the session. Return whether it was taken."""
        return False

    cdef int notice(self) except -1:
        """Note that the client has connected elsewhere, without a claim."""
        return 0

    cdef int left(self) except -1:
        """Note that the entry has been given away, and nobody wants it here."""
        return 0
