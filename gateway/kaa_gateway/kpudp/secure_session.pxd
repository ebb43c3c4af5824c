from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from kaa_gateway.kpudp.replay_window cimport ReplayWindow
from kaa_gateway.net.addresses cimport Address
from kaa_gateway.wire.aead cimport KEY_SIZE, NONCE_SIZE
from kaa_gateway.wire.kpudp_secure cimport PATH_DATA_SIZE, SecureHeader

cdef enum:
    CHECK_DUE = 1   # a result of SecureSession.note_path


cdef struct DirectionKeys:
    uint8_t[KEY_SIZE] key
    uint8_t[NONCE_SIZE] iv


cdef class SecureSession:
    # identity
    cdef uint64_t connection_id
    cdef bytes identity
    cdef object client               # Client
    cdef bytes psk
    cdef bytes secret
    # state of its generation
    cdef Address core_address        # the address by which the core knows it
    cdef uint16_t generation
    cdef bytes resume_random
    cdef DirectionKeys device_keys
    cdef DirectionKeys server_keys
    cdef ReplayWindow window
    cdef int64_t sent                # datagrams, each of which has the next counter
    # state of its path
    cdef Address address             # proved
    cdef Address candidate           # a newer one, of size 0 if there is none
    cdef double candidate_until      # loop time
    cdef double checked_at           # loop time at which PATH_CHECK was sent last
    cdef int64_t candidate_received  # bytes from the candidate, and to it
    cdef int64_t candidate_sent
    cdef bytes path_data             # that the candidate has to send back
    # state
    cdef double last_received        # loop time, to within a second

    cdef int use_keys(self, bytes keys, uint16_t generation, bytes resume_random) except -1
    cdef bint unseal(self, const SecureHeader* header, const DirectionKeys* keys, uint8_t* plain) noexcept
    cdef int note_path(self, const Address* source, Py_ssize_t size, double now) except -1
    cdef const Address* path_for(self, Py_ssize_t size, double now) noexcept
    cdef bint prove(self, const Address* source, const uint8_t* data, Py_ssize_t size) except -1
