from libc.stdint cimport uint16_t, uint32_t

from kaa_gateway.wire.buffer cimport Buffer
from kaa_gateway.wire.mqtt cimport ConnectView


cdef class ClientOptions:
    cdef str client_id
    cdef bint assigned                  # the client has no client identifier of its own
    cdef bint clean_start
    cdef bint outlives                  # it asks for a session that outlives its connection
    cdef double session_expiry          # seconds that its session is kept, as granted; 0: it ends with the connection
    cdef uint16_t keep_alive            # seconds, as asked for
    cdef double keep_alive_granted      # seconds; whole ones of MQTT 5, whose CONNACK tells them
    # of MQTT 5; below, what leaves everything allowed
    cdef uint32_t session_expiry_asked  # seconds
    cdef uint32_t receive_maximum       # messages in flight to the client
    cdef uint32_t packet_size_max       # bytes of a packet to the client; 0 = any
    cdef uint32_t topic_alias_maximum   # aliases that the client takes
    cdef bint problem_information       # it wants Reason Strings and user properties in acknowledgements
    cdef bint response_information      # it wants the basis of a Response Topic
    cdef bytes connack                  # properties of the CONNACK that admits the client


cdef ClientOptions options_of(const ConnectView* connect, double session_expiry_max, double keep_alive_max)
cdef bytes connack_properties(
    ClientOptions options, uint32_t receive_maximum, Py_ssize_t packet_size_max, uint32_t topic_alias_maximum
)
