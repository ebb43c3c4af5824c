"""What of Python is left in the functions that every message goes through; a rise is to be meant, and measured."""

from pathlib import Path

import pytest
from kaa_bench.compare.annotation import HOT, annotated

SOURCES = Path(__file__).parents[3]
LINES_WITH_PYTHON = {
    "gateway/kaa_gateway/wire/mqtt.pyx": {
        # The one calls what raises a violation.
        "next_packet": 1, "read_publish": 0, "append_ack": 0, "append_publish": 0,
    },
    "gateway/kaa_gateway/wire/mqtt_fields.pyx": {"check_topic_name": 0},
    "gateway/kaa_gateway/wire/esp.pyx": {"read_extension_data": 0, "put_head": 0, "read_client_data": 0},
    "gateway/kaa_gateway/kp/correlation.pyx": {"Correlator.put": 0, "Correlator.read": 0},
    # Most lines are of a route that is not that of the last message, of refusals, and of traces.
    "gateway/kaa_gateway/kp/uplink.pyx": {"Uplink.publish": 17, "Uplink.forward": 5},
    # Traces, affinity, several sessions of an endpoint, and application versions without one.
    "gateway/kaa_gateway/kp/downlink.pyx": {
        "Downlink.on_message": 6, "Downlink.dispatch": 6, "Downlink.push": 4, "Downlink.push_to": 1,
        "Downlink.count_out": 4, "Downlink.on_confirmed": 2,
    },
    # The dict of QoS 2's packet identifiers.
    "gateway/kaa_gateway/mqtt/connection.pyx": {
        "MqttConnection.receive": 1, "MqttConnection.parse": 0, "MqttConnection.handle": 2,
        "MqttConnection.on_publish": 7, "message_of": 0,
    },
    # Counters of what cannot be delivered, the queue of QoS 1 and 2 with what it keeps of MQTT 5, and filters.
    "gateway/kaa_gateway/mqtt/session.pyx": {
        "MqttSession.deliver": 11, "MqttSession.acknowledge": 3, "MqttSession.send": 9,
    },
    "gateway/kaa_gateway/mqtt/subscriptions.pyx": {
        "Subscriptions.qos_of": 4, "Subscriptions.pushed_qos": 1, "matches": 0,
    },
    "gateway/kaa_gateway/mqtt/received.pyx": {
        "ReceivedMessages.find": 0, "ReceivedMessages.put": 0, "ReceivedMessages.discard": 0, "digest_of": 0,
    },
    # Violations and faults, the time when a slow reader stops taking output, and the chain of those that have output.
    "gateway/kaa_gateway/net/tcp_connection.pyx": {
        "TcpConnection.read": 1, "TcpConnection.on_bytes": 3, "TcpConnection.flush": 1, "TcpConnection.write": 3,
        "TcpConnection.wake": 4,
    },
    "gateway/kaa_gateway/net/tcp_listener.pyx": {"TcpListener.on_ready": 3, "TcpListener.handle": 3},
}  # fmt: skip


@pytest.mark.parametrize("module", LINES_WITH_PYTHON)
def test_functions_of_the_hot_path_call_python_no_more_than_they_did(module: str) -> None:
    counts = annotated(SOURCES / module)
    allowed = LINES_WITH_PYTHON[module]
    assert {name: counts[name] for name in allowed if name in counts}.keys() == allowed.keys()
    assert {name: counts[name] for name in allowed if counts[name] > allowed[name]} == {}


def test_all_of_them_are_modules_that_the_report_shows() -> None:
    assert set(LINES_WITH_PYTHON) <= set(HOT)
