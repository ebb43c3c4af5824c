"""The requests of one client that name a Response Topic, until they are answered.

Source: MQTT Version 5.0 (OASIS Standard) section 4.10 (request / response).
"""

from kaa_gateway.wire.buffer cimport to_bytes

cdef enum:
    NUMBER_BITS = 26           # what comes back in a correlation ID
    RESPONSE_OVERHEAD = 250    # bytes of a request beside its topic and Correlation Data


cdef class AwaitedResponse:
    """Where the answer to a request goes, and what goes with it."""


cdef class ResponseTopics:
    """Requests by a number of the gateway's own."""

    def __init__(self):
        self.awaited = {}

    cdef uint32_t add(self, Slice topic, Slice correlation_data, uint16_t packet_id) except? 0xFFFFFFFF:
        """Await the answer to a request; return its number."""
        cdef AwaitedResponse response = AwaitedResponse()
        response.topic = to_bytes(topic)
        response.correlation_data = to_bytes(correlation_data)
        response.packet_id = packet_id
        while True:
            self.last_number = (self.last_number + 1) & ((1 << NUMBER_BITS) - 1)
            if self.last_number not in self.awaited:
                break
        self.awaited[self.last_number] = response
        self.bytes += topic.size + correlation_data.size + RESPONSE_OVERHEAD
        return self.last_number

    cdef int put(self, uint32_t number, bytes topic, bytes correlation_data) except -1:
        """Await the answer to a request that was sent to another worker, under its number there."""
        cdef AwaitedResponse response = AwaitedResponse()
        self.take(number)
        response.topic = topic
        response.correlation_data = correlation_data
        self.awaited[number] = response
        self.last_number = number
        self.bytes += len(topic) + (0 if correlation_data is None else len(correlation_data)) + RESPONSE_OVERHEAD
        return 0

    cdef AwaitedResponse take(self, uint32_t number):
        """Return a request that is answered or refused, and forget it; None if it is not there."""
        response = self.awaited.pop(number, None)
        if response is not None:
            self.forget(<AwaitedResponse>response)
        return <AwaitedResponse>response

    cdef int forget(self, AwaitedResponse response) except -1:
        self.bytes -= len(response.topic) + RESPONSE_OVERHEAD
        if response.correlation_data is not None:
            self.bytes -= len(response.correlation_data)
        return 0

    cdef int limit(self, Py_ssize_t count_max, Py_ssize_t bytes_max, Counters counters) except -1:
        """Forget the oldest requests beyond the limits, but not the last one: their answers will be dropped."""
        while len(self.awaited) > count_max or (self.bytes > bytes_max and len(self.awaited) > 1):
            self.take(next(iter(self.awaited)))
            counters.count("dropped", "response_topic")
        return 0
