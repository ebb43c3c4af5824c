from kaa_gateway.mqtt_sn.topics cimport PredefinedTopics


cdef class MqttSnSettings:
    cdef readonly int gateway_id
    cdef readonly double retry_timeout           # seconds
    cdef readonly int retries
    cdef readonly double connect_timeout         # seconds
    cdef readonly Py_ssize_t peers
    cdef readonly Py_ssize_t topics              # registered by or for one client
    cdef readonly Py_ssize_t buffered_messages   # QoS 0 messages that wait for one client
    cdef readonly Py_ssize_t buffered_bytes      # of these
    cdef readonly Py_ssize_t message_size        # bytes of a message to a client
    cdef readonly PredefinedTopics predefined
