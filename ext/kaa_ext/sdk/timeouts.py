"""How long we wait for NATS, in seconds."""

CONNECT_TIMEOUT_S = 5
JETSTREAM_TIMEOUT_S = 5
"""How long we wait for an answer of JetStream."""
