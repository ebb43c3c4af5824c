"""Locust users for the gateway's protocols. Locust patches the standard library, so nothing else imports this."""
