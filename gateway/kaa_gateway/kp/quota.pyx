"""A quota: how many messages and bytes an endpoint, an application version or a tenant may send.

A message counts for the quota of its route and for the wider ones around it, and passes if all of them have room. One
that is refused counts for none. A worker lets its share of a rate through; who gets which share, and what passes in a
month over all workers, is told from outside (kaa_gateway.fleet).
"""

from kaa_gateway.clock cimport monotonic

cdef enum:
    TOO_MANY_REQUESTS = 429


cdef class Scope:
    """The kind of thing that a quota is of."""

    def __init__(self, str name, Refusal message_rate, Refusal byte_rate, Refusal month):
        self.name = name
        self.message_rate = message_rate
        self.byte_rate = byte_rate
        self.month = month


cdef Scope ENDPOINT = Scope(
    "endpoint",
    Refusal(TOO_MANY_REQUESTS, "endpoint_message_rate", "The endpoint sends too many messages"),
    Refusal(TOO_MANY_REQUESTS, "endpoint_byte_rate", "The endpoint sends too many bytes"),
    Refusal(TOO_MANY_REQUESTS, "endpoint_month", "The endpoint has sent its messages of this month"),
)
cdef Scope APP_VERSION = Scope(
    "appVersion",
    Refusal(TOO_MANY_REQUESTS, "app_version_message_rate", "The application version sends too many messages"),
    Refusal(TOO_MANY_REQUESTS, "app_version_byte_rate", "The application version sends too many bytes"),
    Refusal(TOO_MANY_REQUESTS, "app_version_month", "The application version has sent its messages of this month"),
)
cdef Scope TENANT = Scope(
    "tenant",
    Refusal(TOO_MANY_REQUESTS, "tenant_message_rate", "The tenant sends too many messages"),
    Refusal(TOO_MANY_REQUESTS, "tenant_byte_rate", "The tenant sends too many bytes"),
    Refusal(TOO_MANY_REQUESTS, "tenant_month", "The tenant has sent its messages of this month"),
)


cdef class Rates:
    """Messages and bytes a second, and which part of them is this worker's."""

    def __init__(self):
        self.message_share = self.byte_share = 1

    def set_limits(self, double messages_max, double bytes_max):
        """Set other rates; 0 is any."""
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        self.set_shares(self.message_share, self.byte_share)

    def set_shares(self, double message_share, double byte_share):
        """Set which part of the rates is this worker's: more than 0, and 1 at most."""
        self.message_share = message_share
        self.byte_share = byte_share
        self.messages = self.messages_max * message_share
        self.bytes = self.bytes_max * byte_share


cdef class Quota:
    """The quota of one endpoint, application version or tenant. A new one has what a second brings."""

    def __init__(self, Scope scope not None, Rates rates not None, Quota wider):
        self.scope = scope
        self.rates = rates
        self.wider = wider
        self.messages = max(rates.messages, 1.0)
        self.bytes = rates.bytes
        self.at = monotonic()

    def set_month_max(self, int64_t month_max):
        """Set how many messages may pass in a month; 0 is any. What has passed counts when the others' are known."""
        self.month_left += month_max - self.month_max
        self.month_max = month_max

    def set_month(self, int64_t used, double seconds):
        """Set how many messages have passed this month, over all workers, and how long it still is."""
        self.month_left = self.month_max - used
        self.month_end = monotonic() + seconds
        self.month_known = True

    def left_of_month(self):
        """Return how many messages may still pass this month, as far as this worker knows."""
        return self.month_left

    cdef Refusal excess(self, Py_ssize_t size, double now):
        """Count that a message asks for room. Return why there is none, or None if there is. Hot path with a quota.

        A message of any size passes while there is a byte left, and what it has too many is owed.
        """
        cdef double elapsed = now - self.at
        self.at = now
        self.messages_asked += 1
        self.bytes_asked += <uint64_t>size
        if self.rates.messages_max > 0:
            self.messages = min(self.messages + elapsed * self.rates.messages, max(self.rates.messages, 1.0))
            if self.messages < 1:
                return self.scope.message_rate
        if self.rates.bytes_max > 0:
            self.bytes = min(self.bytes + elapsed * self.rates.bytes, self.rates.bytes)
            if self.bytes <= 0:
                return self.scope.byte_rate
        if self.month_max and self.month_left <= 0:
            return self.scope.month
        return None

    cdef int take(self, Py_ssize_t size) noexcept:
        """Take the room of a message that passes. Hot path with a quota."""
        self.messages -= 1
        self.bytes -= <double>size
        self.month_left -= 1
        self.messages_passed += 1
        self.bytes_passed += <uint64_t>size
        return 0

    cdef double wait(self) noexcept:
        """Return the seconds until there is room for a message again."""
        cdef double wait = 0
        if self.rates.messages_max > 0 and self.messages < 1:
            wait = (1 - self.messages) / self.rates.messages
        if self.rates.bytes_max > 0 and self.bytes <= 0:
            wait = max(wait, -self.bytes / self.rates.bytes)
        if self.month_max and self.month_left <= 0:
            wait = max(wait, self.month_end - self.at)
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
