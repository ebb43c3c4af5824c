"""Digests of credentials: passwords do not stay in memory, and nobody without the key can look for them in a dump."""

from hashlib import blake2b

from libc.stdint cimport uint64_t

from kaa_gateway.wire.buffer cimport Buffer

DIGEST_SIZE = 32  # bytes


cdef int append_part(Buffer out, bytes part) except -1:
    """Append a part behind its size, so that no two lists of parts give the same bytes."""
    cdef uint64_t size = len(part)
    out.append(&size, sizeof(size))
    return out.append(<const char*>part, <Py_ssize_t>size)


def digest_of(bytes key not None, str user_name not None, bytes password, certificate):
    """Return the digest of a user name, a password and the fields of a certificate, each of which may be missing.

    The key comes first: for BLAKE2 that is a MAC, and for short credentials it needs one block in place of two.
    """
    cdef Buffer parts = Buffer()
    append_part(parts, key)
    append_part(parts, user_name.encode())
    append_part(parts, b"" if password is None else password)
    if certificate is not None:
        for field in certificate:
            append_part(parts, b"" if field is None else (<str>field).encode())
    return blake2b(parts.copy(), digest_size=DIGEST_SIZE).digest()
