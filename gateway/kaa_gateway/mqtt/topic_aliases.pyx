"""Topic aliases of one connection, both ways: the numbers that stand for topics in PUBLISH.

An alias of the client keeps the compiled route of its topic (kp.uplink, AliasedTopic), so that a message costs no
look-up. Aliases end with the connection.

Source: MQTT Version 5.0 (OASIS Standard) section 3.3.2.3.4.
"""

from kaa_gateway.kp.uplink cimport AliasedTopic
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.mqtt_fields cimport violation

cdef enum:
    TOPIC_OVERHEAD = 200        # bytes of an alias beside its topic
    TOPIC_SIZE_MAX = 1024       # bytes of a topic that the gateway gives an alias
    SENT_BYTES_MAX = 64 * 1024  # of the topics that it gives one


cdef class TopicAliases:
    """The topics to which a client has given aliases. The caller checks an alias against the Topic Alias Maximum."""

    def __init__(self):
        self.topics = []

    cdef PyObject* set(self, uint32_t alias, Slice topic) except NULL:
        """Give a topic an alias, or the alias another topic. Return its AliasedTopic, borrowed from the list."""
        cdef PyObject* old = self.find(alias)
        name = topic.data[:topic.size]
        if old != NULL:
            if (<AliasedTopic>old).topic == name:
                return old
            self.bytes -= len((<AliasedTopic>old).topic) + TOPIC_OVERHEAD
        while <uint32_t>len(self.topics) <= alias:
            self.topics.append(None)
        self.topics[alias] = AliasedTopic(name)
        self.bytes += topic.size + TOPIC_OVERHEAD
        return self.find(alias)

    cdef PyObject* resolve(self, uint32_t alias, PublishView* publish) except NULL:
        """Return the AliasedTopic of a message that uses an alias, borrowed from the list. Hot path.

        The message borrows its topic from that.
        """
        cdef PyObject* found = self.find(alias)
        if found == NULL:
            violation("topic_alias_unknown")
        publish.topic = slice_of((<AliasedTopic>found).topic)
        return found


cdef class SentAliases:
    """The topics to which the gateway has given aliases: as many as the client takes, within a bound of bytes.

    When there is no more room, the oldest alias gets another topic.
    """

    def __init__(self, uint32_t maximum):
        self.maximum = maximum
        self.by_topic = {}
        self.topics = [None]
        self.next = 1

    cdef uint32_t find(self, bytes topic) except? 0xFFFFFFFF:
        """Return the alias of a topic, or 0."""
        return self.by_topic.get(topic, 0)

    cdef uint32_t assign(self, bytes topic) except? 0xFFFFFFFF:
        """Give a topic an alias, and return it; or 0 if the topic is too long for one."""
        cdef uint32_t alias
        if len(topic) > TOPIC_SIZE_MAX:
            return 0
        if self.next >= <uint32_t>len(self.topics) and (
                self.next > self.maximum or self.bytes + len(topic) > SENT_BYTES_MAX):
            self.next = 1
        alias = self.next
        self.next += 1
        if alias < <uint32_t>len(self.topics):
            self.bytes -= len(self.topics[alias])
            del self.by_topic[self.topics[alias]]
            self.topics[alias] = topic
        else:
            self.topics.append(topic)
        self.bytes += len(topic)
        self.by_topic[topic] = alias
        return alias
