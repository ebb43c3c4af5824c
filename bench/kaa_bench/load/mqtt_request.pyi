"""A load of MQTT requests. See mqtt_request_load.pyx."""

from collections.abc import Sequence
from socket import socket

from kaa_bench.load.loop import Load

REQUEST_ID_DIGITS: int

class MqttRequestLoad(Load):
    def __init__(
        self, sockets: Sequence[socket], messages: Sequence[bytes], window: int, *, request_id_offset: int
    ) -> None: ...
