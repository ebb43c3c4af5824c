from libc.stdint cimport uint64_t

# Eight bytes read as one number, whose lowest byte is to be the first.

cdef extern from "<endian.h>" nogil:
    uint64_t little_endian "le64toh"(uint64_t word)

cdef extern from * nogil:
    int trailing_zeros "__builtin_ctzll"(unsigned long long word)  # of a number that is not 0
