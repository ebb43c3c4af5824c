"""The limits of MQTT sessions. See limits.pyx."""

class MqttLimits:
    def __init__(
        self,
        in_flight_window: int,
        queued_messages: int,
        queued_bytes: int,
        subscriptions: int,
        topic_filter_size: int,
        persistent_sessions: int,
        session_expiry: float,
        persistent_bytes: int,
    ) -> None: ...
    def set_sizes(self, queued_bytes: int, topic_filter_size: int) -> None: ...
