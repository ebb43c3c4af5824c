"""A quota of one endpoint, application version or tenant. See quota.pyx."""

class Refusal:
    status: int
    reason: str
    phrase: str

class Scope:
    name: str

class Rates:
    messages: float
    bytes: float

class Quota:
    scope: Scope
    messages_asked: int
    bytes_asked: int
    messages_passed: int
    bytes_passed: int
