"""A registered handler, with the counters of its requests. Which route a resource path has is in routes.py."""

from kaa_gateway.counters cimport Histogram

cdef enum:
    OK = 200


cdef class Route:
    """A handler and the pattern that it is registered for."""

    def __init__(self, str pattern not None, handler, str respond not None, bint streams=False, bint batch=False):
        self.pattern = pattern
        self.handler = handler
        self.respond = respond
        self.streams = streams
        self.batch = batch
        self.gathered = []
        self.others = {}
        self.seconds = Histogram()

    cdef int count(self, int status_code, double seconds) except -1:
        """Count a response. Hot path."""
        if status_code == OK:
            self.ok += 1
        else:
            self.others[status_code] = self.others.get(status_code, 0) + 1
        self.seconds.observe(seconds)
        return 0

    def statuses(self):
        """Return the number of responses by status code."""
        return {OK: self.ok, **self.others} if self.ok else dict(self.others)
