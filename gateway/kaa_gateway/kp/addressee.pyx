"""Under which of its tokens a session gets an ExtensionData, and for which application version.

Source: 4/ESP, ExtensionData; 1/KP, resource paths.
"""

from kaa_gateway.wire.buffer cimport slice_of


cdef bint find_addressee(
    Session session, const Delivery* delivery, Endpoint endpoint, Attachment attachment, Addressee* addressee
) except -1:
    """Set the addressee. Return False if the message is not for this session. Hot path.

    `attachment` is that of the request which the message answers; None is the session's latest one to the endpoint.
    """
    addressee.app_version = delivery.data.app_version_name
    addressee.token = Slice(NULL, 0)
    if endpoint is None:
        return delivery.data.endpoint_id.data == NULL
    if attachment is None:
        attachment = endpoint.attachment_of(session)
    if attachment is None:
        session.counters.count("dropped", "wrong_endpoint")
        return False
    addressee.token = slice_of(attachment.token)
    if addressee.app_version.data == NULL:
        addressee.app_version = slice_of(attachment.app_version)
    return True
