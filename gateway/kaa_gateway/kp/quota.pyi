"""A quota of one endpoint, application version or tenant. See quota.pyx."""

class Scope:
    name: str

class Rates:
    messages_max: float
    bytes_max: float
    messages: float
    bytes: float
    message_share: float
    byte_share: float
    def set_shares(self, message_share: float, byte_share: float) -> None: ...

class Quota:
    scope: Scope
    rates: Rates
    month_max: int
    messages_asked: int
    bytes_asked: int
    messages_passed: int
    bytes_passed: int
    messages_counted: int
    def set_month_max(self, month_max: int) -> None: ...
    def left_of_month(self) -> int: ...
    def set_month(self, used: int, seconds: float) -> None: ...
