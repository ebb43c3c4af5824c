"""MQTT session state. See mqtt_session.pyx."""

from kaa_gateway.kp.sessions import Sessions

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
    ) -> None: ...
    def set_sizes(self, queued_bytes: int, topic_filter_size: int) -> None: ...

class MqttSessions:
    def __init__(self, sessions: Sessions, limits: MqttLimits) -> None: ...
    def expire(self, now: float) -> None: ...
    def offline_count(self) -> int: ...

def filter_matches(topic_filter: bytes, topic: bytes) -> bool: ...
