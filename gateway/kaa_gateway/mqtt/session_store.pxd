from kaa_gateway.fleet.directory cimport SessionDirectory
from kaa_gateway.fleet.session_storage cimport SessionStorage
from kaa_gateway.kp.downlink cimport Downlink
from kaa_gateway.kp.sessions cimport Sessions
from kaa_gateway.kp.uplink cimport Uplink
from kaa_gateway.mqtt.deadlines cimport Deadlines
from kaa_gateway.mqtt.limits cimport MqttLimits

cdef class MqttSessionStore  # before the cimport, because MqttSession refers to it

from kaa_gateway.mqtt.client_table cimport ClientTable
from kaa_gateway.mqtt.session cimport MqttSession
from kaa_gateway.mqtt.session_entry cimport SessionEntry


cdef class MqttSessionStore:
    # wiring
    cdef Sessions sessions
    cdef Uplink uplink           # takes wills; the server's, None without one
    cdef MqttLimits limits
    cdef readonly SessionDirectory directory   # of all workers; None: there are no others
    cdef SessionStorage storage  # where sessions outlive the worker; None: nowhere
    cdef Downlink downlink       # takes what comes after a session that has moved; None: nothing is sent after it
    # state
    cdef ClientTable clients
    cdef object offline          # OrderedDict of MqttSession -> None, longest offline first
    cdef Deadlines expiring      # the same by the time at which they expire
    cdef Deadlines wills         # those whose wills wait for their delay
    cdef Py_ssize_t bytes        # that the offline sessions take

    cdef MqttSession find(self, str principal, str client_id)
    cdef int remove(self, SessionEntry entry) except -1
    cdef int add(self, SessionEntry entry, MqttSession session) except -1
    cdef int keep(self, SessionEntry entry, MqttSession session) except -1
    cdef int end_stored(self, MqttSession session) except -1
    cdef int discard(self, MqttSession session) except -1
    cdef SessionEntry take_out(self, MqttSession session)
    cdef int forget(self, MqttSession session) except -1
    cdef int on_acknowledged(self, MqttSession session) except -1
    cdef int give_later(self, SessionEntry entry) except -1
    cdef int keep_offline(self, MqttSession session) except -1
    cdef bint make_room(self, MqttSession session, Py_ssize_t size) except -1
    cdef int evict_oldest(self) except -1
    cdef int back_online(self, MqttSession session) except -1
    cdef int publish_will(self, MqttSession session) except -1
