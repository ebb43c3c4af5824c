"""The seam between a transport core, which knows bytes, and the adapter that carries them over a socket.

A core (ProtocolCore) is given bytes and leaves bytes in its output; it asks its Transport to write, to pause, to close. Neither
knows the other's class, so a core runs over TCP, TLS or WebSocket alike.
"""

from cpython.pyport cimport PY_SSIZE_T_MAX


cdef class Transport:
    """What a core may ask for; the adapter implements it."""

    cdef int wake(self) except -1:
        """There is output: write it at the end of this tick. Hot path."""
        return 0

    cdef int pause_reading(self) except -1:
        """Read no more until resume_reading: the core cannot take more now."""
        return 0

    cdef int resume_reading(self) except -1:
        """The core takes bytes again."""
        return 0

    cdef int close(self) except -1:
        """Write what there is, then end the connection."""
        return 0


cdef class InputMemory:
    """What the connections of a worker hold of packets and requests that are not whole yet, in bytes.

    Each has INPUT_FREE bytes for nothing, so that counting begins where a connection asks for more than others do.
    """

    def __init__(self, Py_ssize_t bytes_max=PY_SSIZE_T_MAX):
        self.bytes_max = bytes_max

    def set_limit(self, Py_ssize_t bytes_max):
        """Another bound, for what comes from now on."""
        self.bytes_max = bytes_max

    cdef bint take(self, ProtocolCore core, Py_ssize_t size) noexcept:
        """A connection's input takes `size` bytes now; False, and nothing is changed, if that is too much."""
        cdef Py_ssize_t more = (size if size > INPUT_FREE else 0) - core.input_counted
        if more > 0 and self.bytes + more > self.bytes_max:
            return False
        self.bytes += more
        core.input_counted += more
        return True


cdef class ProtocolCore:
    """The core of one connection."""

    def __cinit__(self):
        self.output = Buffer()

    cdef uint64_t packets(self) noexcept:
        """Packets or requests that it has taken so far."""
        return self.taken

    cdef bint is_admitted(self) noexcept:
        """Whether the peer has said who it is, or asked for something."""
        return self.admitted

    cdef int hold(self, bint held) except -1:
        """It is not read from now on, or again, because it has sent too much."""
        self.held = held
        return 0

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Take bytes, borrowed for the call. Hot path."""
        return 0

    cdef int finish_output(self, bint closing) except -1:
        """Called before output is written, once a tick; `closing` says that nothing comes after it. Hot path."""
        return 0

    cdef int resume(self) except -1:
        """The uplink takes messages again: go on with the bytes that were kept back."""
        return 0

    cdef int lost(self) except -1:
        """The connection is gone; nothing more can be written."""
        return 0

    cdef int end(self, str reason) except -1:
        """The client may not go on, for a reason that is a code of ours: close, and take nothing more from it."""
        return self.transport.close()

    cdef int check(self, double now) except -1:
        """Called about once a second with the loop's time, for what depends on time."""
        return 0
