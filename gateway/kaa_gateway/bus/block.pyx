"""The block of publications that the link writes in a tick, and the acknowledgements due when it is confirmed.

A block needs no index of its publications: it is walked when NATS reports something about it.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from kaa_gateway.wire.buffer cimport to_bytes
from kaa_gateway.wire.nats cimport append_publication, next_publication

from kaa_gateway.wire.nats import encode_publish_head

cdef bytes ONE_SUBJECT = b""  # key in `cursors`, which is no subject: whether all publications have the same one


cdef class Block(Buffer):
    """The publications of one tick, sealed by a PING, and the acknowledgements due when it is confirmed.

    Python sees it through the buffer protocol, which is how a transport writes it without a copy.
    """

    def __dealloc__(self):
        free(self.acknowledgements)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.size, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer* buffer):
        self.exports -= 1

    cdef int append_acknowledgement(self, uint64_t session, uint32_t token) except -1:
        cdef Py_ssize_t capacity
        cdef Acknowledgement* grown
        if self.acknowledgement_count == self.acknowledgement_capacity:
            capacity = max(2 * self.acknowledgement_capacity, 64)
            grown = <Acknowledgement*>realloc(self.acknowledgements, <size_t>capacity * sizeof(Acknowledgement))
            if grown == NULL:
                raise MemoryError
            self.acknowledgements = grown
            self.acknowledgement_capacity = capacity
        self.acknowledgements[self.acknowledgement_count] = Acknowledgement(session, token)
        self.acknowledgement_count += 1
        return 0

    cdef bint next_to(self, Slice subject, Publication* publication) except -1:
        """Find the next publication to a subject behind the one found last; return whether there is one.

        Servers before 2.12 do not say which subject they mean (data NULL), and an account that maps subjects lets
        them name one that was not published: then it is the only one in the block, if there is only one.
        """
        if self.cursors is None:
            self.cursors = {}
        if subject.data != NULL and self.find_next(subject, publication):
            return True
        if subject.data != NULL and subject.data[:subject.size] in self.cursors:
            return False  # there are no more of it
        if next_publication(self.data, self.size, publication) == 0:
            return False
        if ONE_SUBJECT not in self.cursors:
            self.cursors[ONE_SUBJECT] = has_one_subject(self, publication.subject)
        return self.cursors[ONE_SUBJECT] and self.find_next(publication.subject, publication)

    cdef bint find_next(self, Slice subject, Publication* publication) except -1:
        """Find the next publication to this very subject."""
        cdef Py_ssize_t at, consumed
        key = subject.data[:subject.size]
        at = self.cursors.get(key, 0)
        while True:
            consumed = next_publication(self.data + at, self.size - at, publication)
            if consumed == 0:
                return False
            at += consumed
            if same(publication.subject, subject):
                self.cursors[key] = at
                return True

    cdef Py_ssize_t largest(self) noexcept:
        """Return the bytes of the largest message, header and payload."""
        cdef Publication publication
        cdef Py_ssize_t at = 0, consumed, largest = 0
        while True:
            consumed = next_publication(self.data + at, self.size - at, &publication)
            if consumed == 0:
                return largest
            at += consumed
            largest = max(largest, publication.header.size + publication.payload.size)

    cdef int append_without_header(self, const Publication* publication) except -1:
        """Append a publication as a PUB."""
        reply = to_bytes(publication.reply)
        head = encode_publish_head(to_bytes(publication.subject).decode(), reply.decode() if reply else None)
        return append_publication(self, head, Slice(NULL, 0), publication.payload)

    cdef int take_listeners(self, Block block) except -1:
        """Take over the acknowledgements and traces of another block, and when that was opened."""
        self.opened_at = block.opened_at
        self.traces = block.traces
        self.acknowledgements = block.acknowledgements
        self.acknowledgement_count = block.acknowledgement_count
        self.acknowledgement_capacity = block.acknowledgement_capacity
        block.acknowledgements = NULL
        block.acknowledgement_count = block.acknowledgement_capacity = 0
        return 0


cdef bint same(Slice one, Slice other) noexcept:
    return one.size == other.size and memcmp(one.data, other.data, <size_t>one.size) == 0


cdef bint has_one_subject(Block block, Slice subject) noexcept:
    cdef Publication publication
    cdef Py_ssize_t at = 0, consumed
    while True:
        consumed = next_publication(block.data + at, block.size - at, &publication)
        if consumed == 0:
            return True
        if not same(publication.subject, subject):
            return False
        at += consumed
