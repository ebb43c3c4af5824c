"""The open requests of an HTTP connection, whose responses leave in the order of the requests.

Source: RFC 9112 section 9.3.2 (pipelining).
"""


cdef class Pipeline:
    """The requests of a connection that wait for their response, and the responses that wait for their turn."""

    cdef int keep_cors(self, uint32_t number, bytes fields) except -1:
        """Keep the header fields for the page that has sent a request, for its response."""
        if self.cors is None:
            self.cors = {}
        self.cors[number] = fields
        return 0

    cdef int keep_response(self, uint32_t number, bytes response) except -1:
        """Keep the response to a request that is not the first, until its turn."""
        if self.early is None:
            self.early = {}
        self.early[number] = response
        return 0

    cdef int complete_first(self, Buffer output) except -1:
        """Close the first request, whose response is written; write those of the next that are here. Hot path."""
        self.first = (self.first + 1) & SEQUENCE_MASK
        self.count -= 1
        while self.early is not None and self.first in self.early:
            response = self.early.pop(self.first)
            output.append(<const char*>(<bytes>response), len(response))
            self.first = (self.first + 1) & SEQUENCE_MASK
            self.count -= 1
            if not self.early:
                self.early = None
        return 0

    cdef int clear(self) except -1:
        """Forget all requests."""
        self.count = 0
        self.early = self.cors = None
        return 0
