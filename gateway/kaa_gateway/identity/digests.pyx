"""Digests of credentials: passwords do not stay in memory, and nobody without the key can look for them in a dump."""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t

from kaa_gateway.wire.blake2b cimport blake2b
from kaa_gateway.wire.buffer cimport Buffer, Slice, slice_of

cdef enum:
    SIZE = 32  # bytes of a digest

DIGEST_SIZE = SIZE


cdef int append_part(Buffer out, Slice part) except -1:
    """Append a part behind its size, so that no two lists of parts give the same bytes."""
    out.append(&part.size, sizeof(part.size))
    return out.append(part.data, part.size)


cdef inline Slice utf8_of(str text) except *:
    """Return the UTF-8 bytes of a text, which holds them."""
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    return Slice(<const uint8_t*>data, size)


def digest_of(bytes key not None, str user_name not None, bytes password, certificate):
    """Return the digest of a user name, a password and the fields of a certificate, each of which may be missing.

    The key comes first: for BLAKE2 that is a MAC, and for short credentials it needs one block in place of two.
    """
    cdef Buffer parts = Buffer()
    cdef uint8_t[SIZE] digest
    append_part(parts, slice_of(key))
    append_part(parts, utf8_of(user_name))
    append_part(parts, slice_of(password))
    if certificate is not None:
        for field in certificate:
            append_part(parts, utf8_of("" if field is None else field))
    blake2b(parts.data, parts.size, digest, SIZE)
    return digest[:SIZE]
