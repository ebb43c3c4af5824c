"""Load of MQTT over WebSocket. See websocket.pyx."""

from kaa_bench.load.mqtt import MqttLoad

class WebSocketLoad(MqttLoad): ...
