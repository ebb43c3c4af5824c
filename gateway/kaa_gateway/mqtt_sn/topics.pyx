"""The topic IDs of MQTT-SN clients: predefined by configuration, or registered on the way.

Topic IDs of one client mean nothing to another (section 7.3). Predefined ones are the same for all clients, but the
topic may contain the client ID.

Source: MQTT-SN 1.2, sections 3, 6.5, 6.7 and 7.3.
"""

from kaa_gateway.wire.mqtt_sn cimport NORMAL, PREDEFINED, SHORT_NAME

cdef enum:
    SHORT_SIZE = 2        # bytes of a short topic name
    TOPIC_OVERHEAD = 256  # bytes of a registered topic beside its characters

CLIENT_ID = "{client-id}"
"""What stands for the client ID in a predefined topic."""

FORBIDDEN = frozenset(b"/+#\0")
"""Bytes of a client ID that must not become part of a topic."""


cdef class PredefinedTopics:
    """The predefined topics of a configuration: {topic ID: topic}."""

    def __init__(self, topics):
        self.names = {number: topic.encode() for number, topic in topics.items() if CLIENT_ID not in topic}
        self.ids = {topic: number for number, topic in self.names.items()}
        self.templates = [(number, topic.encode()) for number, topic in topics.items() if CLIENT_ID in topic]


cdef class ClientTopics:
    """The topic IDs of one client; at most `registered_max` registered ones. `client_id` None has no templates."""

    def __init__(self, PredefinedTopics predefined not None, bytes client_id, Py_ssize_t registered_max):
        self.predefined = predefined
        self.registered_max = registered_max
        if client_id and predefined.templates and FORBIDDEN.isdisjoint(client_id):
            self.own_names = {
                number: topic.replace(b"{client-id}", client_id) for number, topic in predefined.templates
            }
            self.own_ids = {topic: number for number, topic in self.own_names.items()}

    cdef bytes name_of(self, uint8_t topic_type, uint16_t topic_id):
        """Return the topic of a topic ID, or None. Hot path."""
        cdef bytes name
        if topic_type == NORMAL:
            if self.names is None or topic_id == 0 or topic_id > len(self.names):
                return None
            return <bytes>self.names[topic_id - 1]
        if topic_type == SHORT_NAME:
            return bytes((topic_id >> 8, topic_id & 0xFF))
        name = <bytes>self.predefined.names.get(topic_id)
        if name is None and self.own_names is not None:
            name = <bytes>self.own_names.get(topic_id)
        if name is not None:
            self.uses_predefined = True
        return name

    cdef int id_of(self, bytes name, uint8_t* topic_type) except -1:
        """Return the topic ID of a topic for a message to the client, and set its type; 0 if it has none. Hot path.

        A registered one that the client knows is best. A predefined one is good if the client knows these.
        """
        registered = None if self.ids is None else self.ids.get(name)
        topic_type[0] = NORMAL
        if registered is not None and registered in self.told:
            return registered
        if self.uses_predefined:
            number = self.predefined.ids.get(name)
            if number is None and self.own_ids is not None:
                number = self.own_ids.get(name)
            if number is not None:
                topic_type[0] = PREDEFINED
                return number
        if len(name) == SHORT_SIZE:
            topic_type[0] = SHORT_NAME
            return name[0] << 8 | name[1]
        return 0 if registered is None else registered

    def memory(self):
        """Return the bytes that the registered topics take, roughly."""
        return 0 if self.names is None else sum(map(len, self.names)) + TOPIC_OVERHEAD * len(self.names)

    cdef uint16_t register(self, bytes name) except? 0:
        """Return the topic ID of a topic, which gets one if it has none; 0 if there are too many."""
        if self.ids is None:
            self.ids, self.names, self.told = {}, [], set()
        number = self.ids.get(name)
        if number is None:
            if len(self.names) >= self.registered_max:
                return 0
            self.names.append(name)
            number = self.ids[name] = len(self.names)
        return number

    cdef bint is_told(self, uint16_t topic_id) except -1:
        """Return whether the client knows a registered topic ID. Hot path."""
        return self.told is not None and topic_id in self.told

    cdef int tell(self, uint16_t topic_id) except -1:
        """Note that the client knows a registered topic ID."""
        self.told.add(topic_id)
        return 0

    cdef int untell(self, uint16_t topic_id) except -1:
        """Note that the client does not know a topic ID: it has said so."""
        if self.told is not None:
            self.told.discard(topic_id)
        return 0

    cdef int forget_told(self) except -1:
        """Note that the client may have forgotten its registered topic IDs. The gateway keeps them."""
        if self.told is not None:
            self.told.clear()
        return 0
