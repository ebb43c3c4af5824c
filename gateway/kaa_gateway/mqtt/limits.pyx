"""The limits of MQTT sessions, which are settings of a worker. What happens at a limit stands where it is reached."""


cdef class MqttLimits:
    """The limits of sessions.

    Of each: messages in flight to the client, messages queued behind them and their bytes, topic filters and the bytes
    of one. Of those whose clients are offline: their number, the seconds for which they are kept, and their bytes.
    """

    def __init__(
        self, in_flight_window, queued_messages, queued_bytes, subscriptions, topic_filter_size, persistent_sessions,
        session_expiry, persistent_bytes,
    ):
        self.in_flight_window = in_flight_window
        self.queued_messages = queued_messages
        self.queued_bytes = queued_bytes
        self.subscriptions = subscriptions
        self.topic_filter_size = topic_filter_size
        self.persistent_sessions = persistent_sessions
        self.session_expiry = session_expiry
        self.persistent_bytes = persistent_bytes

    def set_sizes(self, queued_bytes, topic_filter_size):
        """Change limits, for what comes from now on."""
        self.queued_bytes = queued_bytes
        self.topic_filter_size = topic_filter_size
