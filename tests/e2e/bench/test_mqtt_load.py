"""The MQTT load generator against Mosquitto."""

import pytest
from kaa_bench.connecting import LoadSpec, connect_load
from kaa_bench.peers.servers import Mosquitto

from tests.unit.bench.load.peer import STALL_TIMEOUT_S

MQTT_5 = [
    LoadSpec("mqtt", connections=2, qos=qos, window=64, mqtt_version="5", aliased=aliased)
    for qos in (0, 1)
    for aliased in (False, True)
]


@pytest.mark.skipif(
    Mosquitto.program() is None, reason="Mosquitto, an independent MQTT server, is not installed"
)
@pytest.mark.parametrize(
    "spec",
    [
        LoadSpec("mqtt", connections=2, qos=0, window=256),
        LoadSpec("mqtt", connections=2, qos=1, window=64),
        LoadSpec("mqtt", connections=50, qos=1, window=1),
        *MQTT_5,
    ],
)
def test_mosquitto_takes_every_message(spec: LoadSpec) -> None:
    with Mosquitto() as mosquitto:
        load = connect_load(spec, mosquitto.address)
        result = load.run(messages=5000, stall_timeout=STALL_TIMEOUT_S)
        load.close()
    assert (result.sent, result.errors) == (5000, {})
    assert result.acknowledged == (5000 if spec.qos else 0)
