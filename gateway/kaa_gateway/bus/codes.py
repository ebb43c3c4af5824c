"""Codes in the answers of NATS and JetStream.

Source: NATS documentation, "Client Protocol" and "JetStream wire API reference"; nats-server, `errors.json`.
"""

NO_RESPONDERS = "503"
"""The status with which NATS answers a request that nobody subscribes to."""
NO_MESSAGE = 10037
STREAM_NOT_FOUND = 10059
STREAM_NAME_IN_USE = 10058
UNAVAILABLE = frozenset({10008, 10009, 10004, 10005, 10075})
"""JetStream error codes that pass: no meta leader, not the leader, an offline peer, too few servers."""
