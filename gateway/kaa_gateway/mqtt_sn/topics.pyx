"""The topic IDs of MQTT-SN clients: predefined by configuration, or registered on the way.

Topic IDs of one client mean nothing to another (section 7.3). Predefined ones are the same for all clients, but the
topic may contain the client ID.

Source: MQTT-SN 1.2, sections 3, 6.5, 6.7 and 7.3.
"""

from kaa_gateway.errors import ProtocolError

from kaa_gateway.mqtt.session cimport TOPIC_OVERHEAD, size_of_topics
from kaa_gateway.wire.buffer cimport slice_of
from kaa_gateway.wire.mqtt_fields cimport check_topic_name
from kaa_gateway.wire.mqtt_sn cimport NORMAL, PREDEFINED, SHORT_NAME

cdef enum:
    SHORT_SIZE = 2        # bytes of a short topic name

CLIENT_ID = "{client-id}"
"""What stands for the client ID in a predefined topic."""

cdef bytes PLACE = CLIENT_ID.encode()

FORBIDDEN = frozenset(b"/+#\0")
"""Bytes of a client ID that must not become part of a topic."""


cdef class PredefinedTopics:
    """The predefined topics of a configuration: {topic ID: topic}."""

    def __init__(self, topics):
        self.names = {number: topic.encode() for number, topic in topics.items() if CLIENT_ID not in topic}
        self.ids = {topic: number for number, topic in self.names.items()}
        self.templates = {number: topic.encode() for number, topic in topics.items() if CLIENT_ID in topic}


cdef class TopicMemory:
    """The bytes that the registered topics of all clients of a worker take, roughly; at most `limit`."""

    def __init__(self, Py_ssize_t limit):
        self.limit = limit

    def bytes(self):
        """Return how many there are."""
        return self.size

    def get_limit(self):
        """Return how many there may be."""
        return self.limit

    def set_limit(self, Py_ssize_t limit):
        """Change the limit, for topics that are registered from now on."""
        self.limit = limit


cdef class ClientTopics:
    """The topic IDs of one client; at most `registered_max` registered ones. `client_id` None has no templates.

    `release` must be called when the client goes.
    """

    def __init__(
        self, PredefinedTopics predefined not None, bytes client_id, Py_ssize_t registered_max,
        TopicMemory memory not None,
    ):
        self.predefined = predefined
        self.registered_max = registered_max
        self.memory = memory
        if client_id and FORBIDDEN.isdisjoint(client_id):
            self.client_id = client_id

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
        if name is None and self.client_id is not None:
            # Made each time: a client that has only connected must not cost memory for each of them.
            name = <bytes>self.predefined.templates.get(topic_id)
            if name is not None:
                name = name.replace(PLACE, self.client_id)
        if name is not None and not self.uses_predefined:
            self.uses_predefined = True
            if self.session is not None:
                self.session.uses_predefined_topics = True
        return name

    cdef bytes topic_of(self, uint8_t topic_type, uint16_t topic_id):
        """Return the topic of a message from the client, or None if there is none. Hot path."""
        cdef bytes name = self.name_of(topic_type, topic_id)
        if name is not None and topic_type == SHORT_NAME:
            # Anything can stand there; other topics were checked before they got their IDs.
            try:
                check_topic_name(slice_of(name))
            except ProtocolError:
                return None
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
            if number is None and self.client_id is not None:
                number = self.own_predefined_id(name)
            if number is not None:
                topic_type[0] = PREDEFINED
                return number
        if len(name) == SHORT_SIZE:
            topic_type[0] = SHORT_NAME
            return name[0] << 8 | name[1]
        return 0 if registered is None else registered

    cdef object own_predefined_id(self, bytes name):
        """Return the topic ID of a predefined topic that contains the client ID, or None."""
        cdef bytes template
        for number, template in self.predefined.templates.items():
            if template.replace(PLACE, self.client_id) == name:
                return number
        return None

    cdef int resume(self, MqttSession session) except -1:
        """Go on with what a session has kept, and have it keep what comes. Its client may have forgotten the IDs."""
        if session.registered_topics is None:
            session.registered_topics = []
        self.session = session
        self.uses_predefined = session.uses_predefined_topics
        return self.begin_registering(session.registered_topics)

    cdef int begin_registering(self, list names) except -1:
        """Keep topics in `names`. Those that are there are registered, as far as there is room for them."""
        cdef list before = [*names]
        names.clear()
        self.names, self.ids, self.told = names, {}, set()
        for name in before:
            if not self.register(name):
                break
        return 0

    cdef uint16_t register(self, bytes name) except? 0:
        """Return the topic ID of a topic, which gets one if it has none; 0 if there is no room: see `refusal`."""
        if self.ids is None:
            self.begin_registering([])
        number = self.ids.get(name)
        if number is None:
            if self.refusal() is not None:
                return 0
            self.memory.size += TOPIC_OVERHEAD + len(name)
            self.names.append(name)
            number = self.ids[name] = len(self.names)
        return number

    cdef str refusal(self):
        """Return the reason why no topic can be registered now, or None."""
        if self.names is not None and len(self.names) >= self.registered_max:
            return "mqtt_sn_too_many_topics"
        return "mqtt_sn_topic_memory" if self.memory.size >= self.memory.limit else None

    cdef int release(self) except -1:
        """Count the registered topics no more: the client has gone, and its session may keep them."""
        if self.names is not None:
            self.memory.size -= size_of_topics(self.names)
            self.names = self.ids = self.told = None
        self.session = None
        return 0

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
