"""What an answer of an extension, or a refusal of ours, says beside its payload: reason phrase and error payload.

Source: 1/KP, responses; 4/ESP, ExtensionData.
"""

from http import HTTPStatus

import msgspec


cdef bytes error_payload(int status, str reason_phrase):
    """Return the error payload of 1/KP."""
    return msgspec.json.encode({"statusCode": status, "reasonPhrase": reason_phrase})


cdef str phrase_of(int status, Slice reason_phrase):
    """Return the reason phrase of an extension, or the standard one of the status."""
    if reason_phrase.size:
        return reason_phrase.data[:min(reason_phrase.size, REASON_PHRASE_SIZE_MAX)].decode("utf-8", "replace")
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
