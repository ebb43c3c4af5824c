"""A quota: how many messages and bytes a second an endpoint, an application version or a tenant may send.

A message counts for the quota of its route and for the wider ones around it, and passes if all of them have room. One
that is refused counts for none. The numbers are those of one worker; how workers share a quota is elsewhere
(kaa_gateway.fleet.quotas).
"""

cdef enum:
    TOO_MANY_REQUESTS = 429


cdef class Refusal:
    """An error with which the gateway itself refuses a message."""

    def __init__(self, int status, str reason not None, str phrase not None):
        self.status = status
        self.reason = reason
        self.phrase = phrase


cdef class Scope:
    """The kind of thing that a quota is of."""

    def __init__(self, str name, Refusal message_rate, Refusal byte_rate):
        self.name = name
        self.message_rate = message_rate
        self.byte_rate = byte_rate


cdef Scope ENDPOINT = Scope(
    "endpoint",
    Refusal(TOO_MANY_REQUESTS, "endpoint_message_rate", "The endpoint sends too many messages"),
    Refusal(TOO_MANY_REQUESTS, "endpoint_byte_rate", "The endpoint sends too many bytes"),
)
cdef Scope APP_VERSION = Scope(
    "appVersion",
    Refusal(TOO_MANY_REQUESTS, "app_version_message_rate", "The application version sends too many messages"),
    Refusal(TOO_MANY_REQUESTS, "app_version_byte_rate", "The application version sends too many bytes"),
)
cdef Scope TENANT = Scope(
    "tenant",
    Refusal(TOO_MANY_REQUESTS, "tenant_message_rate", "The tenant sends too many messages"),
    Refusal(TOO_MANY_REQUESTS, "tenant_byte_rate", "The tenant sends too many bytes"),
)


cdef class Rates:
    """Messages and bytes a second; 0 is any."""


cdef class Quota:
    """The quota of one endpoint, application version or tenant. A new one has what a second brings."""

    def __init__(self, Scope scope not None, Rates rates not None, Quota wider, double now):
        self.scope = scope
        self.rates = rates
        self.wider = wider
        self.messages = max(rates.messages, 1.0)
        self.bytes = rates.bytes
        self.at = now

    cdef Refusal excess(self, Py_ssize_t size, double now):
        """Count that a message asks for room. Return why there is none, or None if there is. Hot path with a quota.

        A message of any size passes while there is a byte left, and what it has too many is owed.
        """
        cdef double elapsed = now - self.at
        self.at = now
        self.messages_asked += 1
        self.bytes_asked += <uint64_t>size
        if self.rates.messages > 0:
            self.messages = min(self.messages + elapsed * self.rates.messages, max(self.rates.messages, 1.0))
            if self.messages < 1:
                return self.scope.message_rate
        if self.rates.bytes > 0:
            self.bytes = min(self.bytes + elapsed * self.rates.bytes, self.rates.bytes)
            if self.bytes <= 0:
                return self.scope.byte_rate
        return None

    cdef int take(self, Py_ssize_t size) noexcept:
        """Take the room of a message that passes. Hot path with a quota."""
        self.messages -= 1
        self.bytes -= <double>size
        self.messages_passed += 1
        self.bytes_passed += <uint64_t>size
        return 0

    cdef double wait(self) noexcept:
        """Return the seconds until there is room for a message again."""
        cdef double wait = 0
        if self.rates.messages > 0 and self.messages < 1:
            wait = (1 - self.messages) / self.rates.messages
        if self.rates.bytes > 0 and self.bytes <= 0:
            wait = max(wait, -self.bytes / self.rates.bytes)
        return wait


cdef Refusal charge(Quota quota, Py_ssize_t size, double now, double* wait):
    """Charge a message to a quota and the wider ones. Hot path with a quota.

    If one of them has no room, none is charged: return why, and set the seconds after which it may come again.
    """
    cdef Quota each = quota
    cdef Refusal refusal
    while each is not None:
        refusal = each.excess(size, now)
        if refusal is not None:
            wait[0] = each.wait()
            return refusal
        each = each.wider
    while quota is not None:
        quota.take(size)
        quota = quota.wider
    return None
