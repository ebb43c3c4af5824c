from libc.stdint cimport uint8_t, uint64_t

from kaa_gateway.wire.buffer cimport Buffer

cdef enum:
    ADDRESS_SIZE_MAX = 28  # bytes of a sockaddr_in6
    LOCAL_SIZE_MAX = 16    # bytes of an IPv6 address
    KEY_SIZE = ADDRESS_SIZE_MAX + LOCAL_SIZE_MAX


cdef struct Address:
    # Of a peer and of us, as the socket gave them. Unused bytes are 0, so that equal addresses have equal bytes.
    uint8_t[ADDRESS_SIZE_MAX] bytes  # the peer's sockaddr_in or sockaddr_in6
    uint8_t[LOCAL_SIZE_MAX] local    # the IP address that it has sent to, where the socket has several; else 0
    unsigned int size                # of the sockaddr


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
