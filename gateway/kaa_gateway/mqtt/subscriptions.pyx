"""The topic filters of one session, with the QoS granted for each, and how a filter matches a topic name.

Delivery does not depend on subscriptions (see session.pyx); they only say at which QoS a client wants a push.

Source: MQTT 3.1.1 sections 3.8.4 (SUBSCRIBE), 3.10.4 (UNSUBSCRIBE), 4.7 (topic names and topic filters).
"""


cdef class Subscriptions:
    """The topic filters of one session."""

    def __init__(self):
        self.granted = {}

    def __len__(self):
        return len(self.granted)

    cdef int add(self, bytes topic_filter, uint8_t qos) except -1:
        """Add a topic filter, or change its QoS."""
        self.granted[topic_filter] = qos
        self.highest_granted = max(self.highest_granted, qos)
        return 0

    cdef int remove(self, bytes topic_filter) except -1:
        """Remove a topic filter, if it is there."""
        self.granted.pop(topic_filter, None)
        self.highest_granted = max(self.granted.values(), default=0)
        return 0

    cdef uint8_t qos_of(self, Slice topic) except? 0xFF:
        """Return the highest QoS granted by a topic filter that matches a topic name; 0 if none does. Hot path."""
        cdef uint8_t best = 0, qos
        cdef bytes name
        if self.highest_granted == 0:  # so of most sessions
            return 0
        for name, granted in self.granted.items():
            qos = granted
            if qos > best and matches(Slice(<const uint8_t*>name, len(name)), topic):
                best = qos
        return best


cdef bint matches(Slice topic_filter, Slice topic) noexcept nogil:
    """Return whether a well-formed topic filter matches a topic name (4.7)."""
    cdef Py_ssize_t f = 0, t = 0
    if topic.size and topic.data[0] == c"$" and topic_filter.data[0] in (c"+", c"#"):
        return False
    while f < topic_filter.size:
        if topic_filter.data[f] == c"#":
            return True
        if topic_filter.data[f] == c"+":
            while t < topic.size and topic.data[t] != c"/":
                t += 1
            f += 1
        else:
            while f < topic_filter.size and topic_filter.data[f] != c"/":
                if t >= topic.size or topic.data[t] != topic_filter.data[f]:
                    return False
                f += 1
                t += 1
            if t < topic.size and topic.data[t] != c"/":
                return False
        if f >= topic_filter.size:
            break
        # The filter has another level.
        if t >= topic.size:
            # "a/#" matches "a" as well.
            return topic_filter.size - f == 2 and topic_filter.data[f + 1] == c"#"
        f += 1
        t += 1
        if f == topic_filter.size:
            # An empty last level of the filter matches an empty last level of the topic.
            return t == topic.size
    return t >= topic.size


def filter_matches(bytes topic_filter not None, bytes topic not None):
    """Return whether a well-formed topic filter matches a topic name."""
    return bool(matches(
        Slice(<const uint8_t*>topic_filter, len(topic_filter)), Slice(<const uint8_t*>topic, len(topic))
    ))
