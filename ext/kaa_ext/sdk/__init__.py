"""The SDK for extension services."""
