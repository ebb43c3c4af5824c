"""Digests of credentials: passwords do not stay in memory, and nobody without the key can look for them in a dump."""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from kaa_gateway.wire.blake2b cimport blake2b
from kaa_gateway.wire.buffer cimport Buffer, Slice, slice_of

cdef enum:
    SIZE = 32         # bytes of a digest
    SHORT_MAX = 512   # bytes of key, user name and password that need no buffer, with their sizes

DIGEST_SIZE = SIZE


cdef inline uint8_t* put_part(uint8_t* at, Slice part) noexcept:
    """Write a part behind its size, so that no two lists of parts give the same bytes. Return where it ends."""
    memcpy(at, &part.size, sizeof(part.size))
    at += sizeof(part.size)
    if part.size:  # or `data` may be NULL
        memcpy(at, part.data, <size_t>part.size)
    return at + part.size


cdef int append_part(Buffer out, Slice part) except -1:
    """Append a part as `put_part` writes it."""
    cdef uint8_t* at = out.reserve(<Py_ssize_t>sizeof(part.size) + part.size)
    out.size += put_part(at, part) - at
    return 0


cdef inline Slice utf8_of(str text) except *:
    """Return the UTF-8 bytes of a text, which holds them."""
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    return Slice(<const uint8_t*>data, size)


def digest_of(bytes key not None, str user_name not None, bytes password, certificate):
    """Return the digest of a user name, a password and the fields of a certificate, each of which may be missing.

    The key comes first: for BLAKE2 that is a MAC, and for short credentials it needs one block in place of two.
    """
    return digest_of_slices(key, utf8_of(user_name), slice_of(password), certificate)


cdef bytes digest_of_slices(bytes key, Slice user_name, Slice password, certificate):
    """Do what `digest_of` does, with the user name in UTF-8."""
    cdef uint8_t[SHORT_MAX] short
    cdef uint8_t[SIZE] digest
    cdef uint8_t* end
    cdef Buffer parts
    cdef Py_ssize_t size = <Py_ssize_t>(3 * sizeof(Py_ssize_t)) + len(key) + user_name.size + password.size
    if certificate is None and size <= SHORT_MAX:
        end = put_part(put_part(put_part(short, slice_of(key)), user_name), password)
        blake2b(short, end - short, digest, SIZE)
        return digest[:SIZE]
    parts = Buffer()
    append_part(parts, slice_of(key))
    append_part(parts, user_name)
    append_part(parts, password)
    if certificate is not None:
        for field in certificate:
            append_part(parts, utf8_of("" if field is None else field))
    blake2b(parts.data, parts.size, digest, SIZE)
    return digest[:SIZE]
