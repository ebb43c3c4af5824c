from libc.stdint cimport uint8_t, uint64_t

from kaa_gateway.net.addresses cimport Address, AddressTable
from kaa_gateway.net.udp cimport DatagramCore
from kaa_gateway.plugins.server cimport PluginServer
from kaa_gateway.plugins.session cimport PluginSession


cdef class DatagramPeers(DatagramCore)


cdef class DatagramSession(PluginSession):
    # wiring
    cdef DatagramPeers peers     # None once it is gone
    # state
    cdef Address address
    cdef bint admitted           # its endpoint is identified, or a message of it was forwarded
    cdef double last_received    # loop time
    cdef double noted_timer      # loop time of its earliest entry in the timers; 0: there is none
    cdef uint64_t credit         # bytes that may be sent to the address before it is admitted


cdef class DatagramPeers(DatagramCore):
    # wiring
    cdef PluginServer server
    cdef Py_ssize_t peers_max
    # state
    cdef AddressTable by_address
    cdef object strangers        # OrderedDict: sessions that are not admitted, the one silent for longest first
    cdef object known            # OrderedDict: the others
    cdef list timers             # heap of (loop time, key of the session, session)
    cdef double now

    cdef DatagramSession open_peer(self, const Address* source)
    cdef int evict(self, peers, Py_ssize_t most) except -1
    cdef int drop_stale_timers(self) except -1
    cdef bint end_silent(self, peers, double before) except -1
