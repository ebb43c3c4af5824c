"""Generates load, and measures the gateway beside other servers."""
