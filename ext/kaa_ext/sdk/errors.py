"""The error tree of the extension SDK."""

from http import HTTPStatus


class ExtError(Exception):
    """Base of all errors that the SDK raises on purpose."""


class ExtensionError(ExtError):
    """Raised by a handler: answers the request with an error status.

    `status_code` is the HTTP status, 400 to 599. `reason_phrase` goes to the device, so it says what the
    device can do better and nothing about the inside of the service; the default is the standard phrase of
    the status.
    """

    def __init__(self, status_code: int, reason_phrase: str | None = None) -> None:
        if not 400 <= status_code <= 599:
            raise ValueError(f"status code {status_code} is not that of an error, 400 to 599")
        if reason_phrase is None:
            known = status_code in HTTPStatus.__members__.values()
            reason_phrase = HTTPStatus(status_code).phrase if known else "Error"
        super().__init__(f"{status_code} {reason_phrase}")
        self.status_code = status_code
        self.reason_phrase = reason_phrase


class NotDelivered(ExtError):  # noqa: N818 - says what happened to the message
    """A message could not be handed to NATS: no connection, and no room to keep it until there is one."""


class PayloadTooLarge(NotDelivered):
    """A message is larger than the NATS server takes (its `max_payload`)."""


class StateUnavailable(ExtensionError):  # noqa: N818 - says what is wrong with the state
    """JetStream did not answer, or not in time: what was asked of it may or may not have happened.

    A handler lets it pass: the device is told 503, and asks again.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(503, "State is not available")
        self.reason = reason
