"""The topic filters of one session, with the QoS granted for each, and how a filter matches a topic name.

Delivery does not depend on subscriptions (see session.pyx); they only say at which QoS a client wants a message.

Source: MQTT 3.1.1 sections 3.8.4 (SUBSCRIBE), 3.10.4 (UNSUBSCRIBE), 4.7 (topic names and topic filters).
"""

from itertools import islice

from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.mqtt_properties cimport SUBSCRIPTION_IDENTIFIER, append_variable

cdef enum:
    FILTER_OVERHEAD = 128  # bytes of a topic filter beside its text
    FILTERS_SHOWN = 20
    FILTER_SIZE_SHOWN = 256  # characters
    TOKEN_LEVEL = 3        # of a topic filter of 1/KP
    TOKEN_SHOWN = 4        # characters


cdef class Subscriptions:
    """The topic filters of one session."""

    def __init__(self):
        self.granted = {}

    def __len__(self):
        return len(self.granted)

    def shown(self):
        """Return the first FILTERS_SHOWN topic filters for an operator, with endpoint tokens shortened."""
        return [shown_filter(topic_filter.decode()) for topic_filter in islice(self.granted, FILTERS_SHOWN)]

    cdef int add(self, bytes topic_filter, uint8_t qos, uint32_t identifier) except -1:
        """Add a topic filter, or replace its QoS and its Subscription Identifier, which is 0 if it has none."""
        self.remove(topic_filter)
        self.granted[topic_filter] = qos
        if identifier:
            if self.identifiers is None:
                self.identifiers = {}
            self.identifiers[topic_filter] = identifier
        return self.count(topic_filter, qos, 1)

    cdef bint remove(self, bytes topic_filter) except -1:
        """Remove a topic filter. Return False if it is not there."""
        qos = self.granted.pop(topic_filter, None)
        if qos is None:
            return False
        if self.identifiers is not None:
            self.identifiers.pop(topic_filter, None)
        self.count(topic_filter, qos, -1)
        return True

    cdef int append_identifiers(self, Buffer properties, Slice topic) except -1:
        """Append the Subscription Identifiers of the topic filters that match a topic name (MQTT 5, 3.3.4)."""
        cdef bytes name
        if self.identifiers is not None:
            for name, identifier in self.identifiers.items():
                if matches(slice_of(name), topic):
                    append_variable(properties, SUBSCRIPTION_IDENTIFIER, identifier)
        return 0

    cdef int count(self, bytes topic_filter, uint8_t qos, Py_ssize_t number) except -1:
        self.counts[qos] += number
        self.bytes += number * (len(topic_filter) + FILTER_OVERHEAD)
        return 0

    cdef int qos_of(self, Slice topic) except -2:
        """Return the highest QoS granted by a topic filter that matches a topic name (3.3.5), or NO_MATCH. Hot path."""
        cdef int best = NO_MATCH, qos, highest = 2 if self.counts[2] else 1 if self.counts[1] else 0
        cdef bytes name
        for name, granted in self.granted.items():
            qos = granted
            if qos > best and matches(slice_of(name), topic):
                if qos == highest:
                    return qos
                best = qos
        return best

    cdef int pushed_qos(self, Slice topic) except -2:
        """Return the QoS of a push to a topic name: 0 if no topic filter matches it. Hot path."""
        if self.counts[1] == 0 and self.counts[2] == 0:  # so of most sessions
            return 0
        return max(self.qos_of(topic), 0)


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
    return bool(matches(slice_of(topic_filter), slice_of(topic)))


def shown_filter(str topic_filter not None):
    """Return a topic filter with the token in it shortened; one that is long is cut."""
    levels = topic_filter.split("/")
    if levels[0] == "kp1" and len(levels) > TOKEN_LEVEL and levels[TOKEN_LEVEL] not in ("+", "#"):
        token = levels[TOKEN_LEVEL]
        levels[TOKEN_LEVEL] = token[:min(TOKEN_SHOWN, len(token) // 2)] + "…"
    shown = "/".join(levels)
    return shown if len(shown) <= FILTER_SIZE_SHOWN else shown[:FILTER_SIZE_SHOWN] + "…"
