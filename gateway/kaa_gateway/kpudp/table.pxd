from libc.stdint cimport uint64_t

from kaa_gateway.kp.sessions cimport Session
from kaa_gateway.net.addresses cimport Address, AddressTable


cdef class Queue


cdef class Entry(Session):
    # A peer's place in the table.
    cdef Address address
    cdef double heard        # loop time of the last datagram from it, seconds
    cdef uint64_t turn       # the order of those datagrams
    cdef bint proved         # it has repeated what we sent to its address
    cdef Queue queue         # that it stands in, or None
    cdef Entry older
    cdef Entry newer

    cdef bint is_busy(self) noexcept


cdef class Queue:
    # state: a chain of entries, the longest unheard first
    cdef Entry first
    cdef Entry last
    cdef Py_ssize_t count

    cdef int append(self, Entry entry) except -1
    cdef int remove(self, Entry entry) except -1


cdef class Group:
    # Entries that compete for the same places.
    cdef Py_ssize_t capacity
    cdef Queue idle
    cdef Queue busy          # in the middle of an exchange

    cdef Entry excess(self)


cdef class Table:
    # state
    cdef AddressTable entries
    cdef Group strangers     # whose addresses are not proved
    cdef Group proved
    cdef uint64_t turns

    cdef Entry find(self, const Address* address)
    cdef Entry add(self, Entry entry)
    cdef Entry hear(self, Entry entry, double now)
    cdef Entry place(self, Entry entry)
    cdef int remove(self, Entry entry) except -1
    cdef Entry overdue(self, double deadline)
