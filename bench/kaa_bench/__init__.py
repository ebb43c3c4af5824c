"""Load generation and measurement of the gateway beside its peers."""
