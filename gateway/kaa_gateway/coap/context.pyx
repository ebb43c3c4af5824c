"""What the peers of a CoAP server share."""


cdef class CoapContext:
    """The tables and settings that the peers of a server share."""
