"""An error with which the gateway itself refuses a message, whatever the protocol of its device."""


cdef class Refusal:
    """An error: its status of 1/KP, the code that counts it, and the phrase for the device."""

    def __init__(self, int status, str reason not None, str phrase not None):
        self.status = status
        self.reason = reason
        self.phrase = phrase
