"""WebSocket frames: the server's side of RFC 6455 sections 5 and 7, without extensions.

Headers are read and payloads unmasked piece by piece, so no frame needs memory of its size. What does not live here:
the legal order of frames (kaa_gateway.net.websocket).
"""

from libc.string cimport memcpy

cdef enum:
    FINAL = 0x80
    RESERVED = 0x70
    MASKED = 0x80
    SIZE_16 = 126               # in the length field: the next two bytes are the length
    SIZE_64 = 127               # the next eight bytes are the length

FORMAT_REASONS = (
    "", "", "ws_reserved_bits", "ws_unknown_opcode", "ws_not_masked", "ws_overlong_length", "ws_bad_control_frame",
)


cdef HeaderFormat read_header(
    const uint8_t* data, Py_ssize_t size, FrameHeader* header, Py_ssize_t* taken
) noexcept nogil:
    """Read a client's frame header. If it is well-formed, `taken` is its size in bytes. Hot path."""
    cdef Py_ssize_t length_size = 0, i
    cdef uint8_t short_size
    if size < 2:
        return HEADER_INCOMPLETE
    if data[0] & RESERVED:
        return RESERVED_BITS
    header.final = (data[0] & FINAL) != 0
    header.opcode = <Opcode>(data[0] & 0x0F)
    short_size = data[1] & 0x7F
    if header.opcode > PONG or PING > header.opcode > BINARY and header.opcode != CLOSE:
        return UNKNOWN_OPCODE
    if not data[1] & MASKED:
        return NOT_MASKED
    if header.opcode >= CLOSE and (not header.final or short_size > CONTROL_PAYLOAD_MAX):
        return BAD_CONTROL_FRAME
    header.size = short_size
    if short_size >= SIZE_16:
        length_size = 2 if short_size == SIZE_16 else 8
        if size < 2 + length_size:
            return HEADER_INCOMPLETE
        header.size = 0
        for i in range(length_size):
            header.size = header.size << 8 | data[2 + i]
        if header.size < SIZE_16 or (length_size == 8 and (header.size <= 0xFFFF or header.size >> 63)):
            return OVERLONG_LENGTH
    if size < 2 + length_size + 4:
        return HEADER_INCOMPLETE
    memcpy(header.mask, data + 2 + length_size, 4)
    taken[0] = 2 + length_size + 4
    return HEADER_WELL_FORMED


cdef void unmask(
    uint8_t* target, const uint8_t* source, Py_ssize_t size, const uint8_t* mask, uint64_t at
) noexcept nogil:
    """Unmask the piece of a payload that starts `at` bytes into it (section 5.3). Hot path."""
    cdef uint8_t[8] key
    cdef uint64_t wide, word
    cdef Py_ssize_t i
    for i in range(8):
        key[i] = mask[(at + <uint64_t>i) & 3]
    memcpy(&wide, key, 8)
    i = 0
    while size - i >= 8:
        memcpy(&word, source + i, 8)
        word ^= wide
        memcpy(target + i, &word, 8)
        i += 8
    while i < size:
        target[i] = source[i] ^ key[i & 7]
        i += 1


cdef int append_frame(Buffer out, Opcode opcode, const uint8_t* payload, Py_ssize_t size) except -1:
    """Append a message as one frame, unmasked as all frames of a server. Hot path."""
    cdef uint8_t* at = out.reserve(HEADER_SIZE_MAX + size)
    cdef Py_ssize_t length_size = 0, i
    at[0] = FINAL | opcode
    if size < SIZE_16:
        at[1] = <uint8_t>size
    else:
        length_size = 2 if size <= 0xFFFF else 8
        at[1] = SIZE_16 if length_size == 2 else SIZE_64
        for i in range(length_size):
            at[2 + i] = <uint8_t>(<uint64_t>size >> (8 * (length_size - 1 - i)))
    if size:
        memcpy(at + 2 + length_size, payload, <size_t>size)
    out.size += 2 + length_size + size
    return 0


cdef int append_close(Buffer out, CloseCode code) except -1:
    """Append a Close frame; NO_CODE makes an empty one."""
    cdef uint8_t[2] payload
    payload[0] = <uint8_t>(<int>code >> 8)
    payload[1] = <uint8_t>(<int>code & 0xFF)
    return append_frame(out, CLOSE, payload, 0 if code == NO_CODE else 2)


cdef int read_close(const uint8_t* payload, Py_ssize_t size) except -1:
    """Return the code that answers a Close frame: its own, or that of its error (sections 5.5.1, 7.4)."""
    cdef int code
    if size == 0:
        return NO_CODE
    if size == 1:
        return PROTOCOL_ERROR
    code = payload[0] << 8 | payload[1]
    if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, 1005, 1006):
        return PROTOCOL_ERROR
    try:
        payload[2:size].decode("utf-8")
    except UnicodeDecodeError:
        return INVALID_PAYLOAD
    return code
