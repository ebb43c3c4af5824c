"""Sockets and timers; one module a device protocol, each around a sans-IO core."""
