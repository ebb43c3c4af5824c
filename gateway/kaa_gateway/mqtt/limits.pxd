cdef class MqttLimits:
    cdef readonly Py_ssize_t in_flight_window
    cdef readonly Py_ssize_t queued_messages
    cdef readonly Py_ssize_t queued_bytes
    cdef readonly Py_ssize_t subscriptions
    cdef readonly Py_ssize_t topic_filter_size    # bytes
    cdef readonly Py_ssize_t persistent_sessions
    cdef readonly double session_expiry           # seconds
    cdef readonly Py_ssize_t persistent_bytes     # of the sessions whose clients are offline
