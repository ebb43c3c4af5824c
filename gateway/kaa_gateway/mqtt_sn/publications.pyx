"""The last QoS 1 messages of a client: which topic ID their PUBACK has, and which message is a repetition.

MQTT below version 5 tells no repetitions of QoS 1 apart. Over UDP, a client whose PUBACK was lost sends again, so the
gateway remembers the last messages and acknowledges a repetition without forwarding it.

Source: MQTT-SN 1.2, sections 5.4.13 and 6.13.
"""


cdef class Publications:
    """A ring of the last messages."""

    cdef Publication* find(self, uint16_t message_id) noexcept:
        """Return the latest message with this message ID, or NULL. Hot path."""
        cdef int i
        for i in range(PUBLICATIONS_MAX):
            if self.entries[i].state != UNUSED and self.entries[i].message_id == message_id:
                return &self.entries[i]
        return NULL

    cdef bint add(self, uint16_t message_id, uint16_t topic_id, uint64_t digest) noexcept:
        """Remember a message that waits for its PUBACK. Return False if too many wait. Hot path."""
        cdef Publication* entry = self.find(message_id)
        cdef int i
        if entry == NULL:
            for i in range(PUBLICATIONS_MAX):
                entry = &self.entries[(self.oldest + i) % PUBLICATIONS_MAX]
                if entry.state != WAITING:
                    self.oldest = (self.oldest + i + 1) % PUBLICATIONS_MAX
                    break
            else:
                return False
        entry.digest = digest
        entry.message_id = message_id
        entry.topic_id = topic_id
        entry.state = WAITING
        return True

    cdef int32_t acknowledge(self, uint16_t message_id) noexcept:
        """Note the PUBACK of a message. Return its topic ID, or -1 if it is not remembered. Hot path."""
        cdef Publication* entry = self.find(message_id)
        if entry == NULL:
            return -1
        entry.state = ACKNOWLEDGED
        return entry.topic_id
