"""An error with which the gateway itself refuses a message. See refusal.pyx."""

class Refusal:
    status: int
    reason: str
    phrase: str
