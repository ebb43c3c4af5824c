"""The topic IDs of MQTT-SN clients. See topics.pyx."""

from collections.abc import Mapping

CLIENT_ID: str

class PredefinedTopics:
    def __init__(self, topics: Mapping[int, str]) -> None: ...

class ClientTopics:
    def memory(self) -> int: ...
