"""Lifecycle: events about endpoints that the gateway publishes (9/ELCE), and announcements that it takes (17/SCMP)."""
