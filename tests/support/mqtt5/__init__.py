"""An MQTT 5 client of bare packets for tests, with a codec that shares nothing with the gateway's."""
