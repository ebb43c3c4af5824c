"""The settings of the MQTT-SN server, which all its clients share."""


cdef class MqttSnSettings:
    """The settings of a worker's MQTT-SN servers. What happens at a bound stands where it is reached."""

    def __init__(self, **settings):
        self.set(**settings)

    def set(
        self, *, gateway_id, retry_timeout, retries, connect_timeout, peers, topics, buffered_messages, buffered_bytes,
        message_size, predefined,
    ):
        """Change all settings, for what comes from now on."""
        self.gateway_id = gateway_id
        self.retry_timeout = retry_timeout
        self.retries = retries
        self.connect_timeout = connect_timeout
        self.peers = peers
        self.topics = topics
        self.buffered_messages = buffered_messages
        self.buffered_bytes = buffered_bytes
        self.message_size = message_size
        self.predefined = PredefinedTopics(predefined)
