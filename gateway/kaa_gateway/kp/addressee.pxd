from kaa_gateway.kp.session cimport Attachment, Delivery, Endpoint, Session
from kaa_gateway.wire.buffer cimport Slice


cdef struct Addressee:
    # For whom an ExtensionData is, within a session. Slices borrow from its datum, or from an attachment.
    Slice app_version    # absent if neither names it
    Slice token          # absent if the message is for no endpoint


cdef bint find_addressee(
    Session session, const Delivery* delivery, Endpoint endpoint, Attachment attachment, Addressee* addressee
) except -1
