from libc.stdint cimport uint8_t, uint64_t

from kaa_gateway.counters cimport Counters
from kaa_gateway.net.addresses cimport Address
from kaa_gateway.net.admission cimport Admission
from kaa_gateway.net.proxy cimport ProxyProtocol
from kaa_gateway.net.sockets cimport msghdr
from kaa_gateway.tick cimport Tick, TickOutput
from kaa_gateway.wire.buffer cimport Buffer


cdef class DatagramCore:
    # wiring
    cdef UdpSocket socket

    cdef int receive(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1
    cdef bint check(self, double now) except -1
    cdef int forget(self, const Address* address) except -1


cdef class UdpSocket(TickOutput):
    # wiring
    cdef readonly object loop
    cdef Tick tick
    cdef DatagramCore core
    cdef Counters counters
    cdef Admission admission      # None if nothing is limited
    cdef ProxyProtocol proxy      # None if no proxy is trusted to name its clients
    cdef object socket
    cdef int fd
    cdef bint several_addresses   # bound to all of an address family: answers say from which they come
    cdef bint ipv6                # its addresses are those of IPv6, which may have IPv4 ones within
    cdef bint to_group            # the datagram that is being handled was sent to a multicast group
    # state
    cdef object clients           # OrderedDict of address of a proxy -> sockaddr of its client, the oldest first
    cdef Buffer receive_storage
    cdef Buffer inbox             # an Inbox, which points into receive_storage
    cdef Buffer outgoing_bytes    # of the datagrams that wait to be sent, one behind the other
    cdef Buffer outgoing          # an Outgoing for each of them
    cdef double now               # loop time at which the datagrams being received were read, seconds
    cdef bint writer_added
    # counters
    cdef readonly uint64_t datagrams_in
    cdef readonly uint64_t datagrams_out
    cdef readonly uint64_t bytes_in
    cdef readonly uint64_t bytes_out

    cdef int read(self) except -1
    cdef int prepare_inbox(self) except -1
    cdef int note_local_address(self, msghdr* message, Address* source) noexcept
    cdef int set_local_address(self, msghdr* message, Address* destination) noexcept
    cdef Py_ssize_t take_header(
        self, const uint8_t* data, Py_ssize_t size, const Address* source, Address* client
    ) except -2
    cdef int remember_client(self, const Address* source, const Address* client) except -1
    cdef bytes client_address(self, const Address* address)
    cdef int on_datagram(self, const uint8_t* data, Py_ssize_t size, const Address* source) except -1
    cdef object client_of(self, const Address* address)
    cdef Py_ssize_t message_size_max(self, const Address* address) except -1
    cdef int disconnect(self, const Address* address) except -1
    cdef int send(self, const Address* destination, const uint8_t* data, Py_ssize_t size) except -1
    cdef int flush(self) except -1
    cdef int keep_from(self, Py_ssize_t done, Py_ssize_t total) except -1
