"""NATS: the native per-message link, the control connection, and the 3/ISM subject names."""
