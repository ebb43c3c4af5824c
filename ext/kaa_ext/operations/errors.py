"""The error of operations that cannot be done now."""

from kaa_ext.sdk.errors import ExtError


class Unavailable(ExtError):  # noqa: N818 - says what is wrong
    """NATS or a service cannot do an operation; the message is a sentence for the user."""
