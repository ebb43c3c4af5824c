"""The bridge: devices that are on another MQTT broker. See docs/bridge.md."""
