"""MQTT-SN 1.2: a gateway for clients over UDP and DTLS, above the connections and sessions of `mqtt`."""
