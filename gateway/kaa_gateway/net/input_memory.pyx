"""The bound of the memory that a worker's connections hold of incomplete packets and requests.

Every connection has INPUT_FREE bytes that are not counted, so most connections are never counted at all.
"""

from cpython.pyport cimport PY_SSIZE_T_MAX


cdef class InputMemory:
    """The bytes of incomplete input that all connections of a worker hold together."""

    def __init__(self, Py_ssize_t bytes_max=PY_SSIZE_T_MAX):
        self.bytes_max = bytes_max

    def set_limit(self, Py_ssize_t bytes_max):
        """Set another bound, which holds for input that comes from now on."""
        self.bytes_max = bytes_max

    cdef bint reserve(self, ProtocolCore core, Py_ssize_t size) noexcept:
        """Record that the input of `core` has `size` bytes now. Return False, and change nothing, if it must not."""
        cdef Py_ssize_t more = (size if size > INPUT_FREE else 0) - core.input_counted
        if more > 0 and self.bytes + more > self.bytes_max:
            return False
        self.bytes += more
        core.input_counted += more
        return True
