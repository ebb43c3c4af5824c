from kaa_gateway.wire.buffer cimport Slice


cdef bytes digest_of_slices(bytes key, Slice user_name, Slice password, certificate)
