from libc.stdint cimport uint8_t, uint64_t

from kaa_gateway.wire.buffer cimport Buffer

cdef enum:
    ADDRESS_SIZE_MAX = 28  # bytes of a sockaddr_in6


cdef struct Address:
    # Of a peer, as the socket gave it: a sockaddr_in or sockaddr_in6. Equal peers have equal bytes.
    unsigned int size
    uint8_t[ADDRESS_SIZE_MAX] bytes


cdef bytes address_key(const Address* address)


cdef class AddressTable:
    # state
    cdef list values             # the value of each slot, or None; a power of two of them
    cdef Buffer slots            # a Slot for each
    cdef uint64_t[2] secret
    cdef readonly Py_ssize_t count

    cdef object find(self, const Address* address)
    cdef int add(self, const Address* address, value) except -1
    cdef int remove(self, const Address* address) except -1
    cdef uint64_t hash_of(self, const Address* address) noexcept
    cdef Py_ssize_t slot_of(self, const Address* address, uint64_t hash) noexcept
    cdef int resize(self, Py_ssize_t size) except -1
