"""OpenSSL for the records of established TLS connections, without the objects of Python's `ssl`.

`ssl` makes connections and shakes hands; then a connection's SSL structure is taken out of its object and used from
here, which saves four calls of Python for each message. The functions are those of the library that `ssl` has loaded:
another copy could not use its structures. Where Python has OpenSSL linked into itself, they cannot be found, and
connections go on with the objects of `ssl`.

An established connection has no buffers of its own for encrypted bytes. All of a listener share two: every call leaves
both empty, because OpenSSL keeps what it has of an incomplete record.

Source: the manual pages of OpenSSL 3: SSL_read, SSL_write, SSL_get_error, SSL_shutdown, BIO_s_mem.
"""

import _ssl
import ssl

from cpython.object cimport PyObject
from posix.dlfcn cimport RTLD_LAZY, dlopen, dlsym

cdef extern from "<dlfcn.h>" nogil:
    int RTLD_NOLOAD

cdef extern from *:
    """
    /* The beginning of the objects of ssl._SSLSocket and ssl._SSLContext in CPython 3.11 to 3.14 (Modules/_ssl.c). */
    typedef struct { PyObject_HEAD PyObject *socket; void *native; PyObject *context; } SslSocketHead;
    typedef struct { PyObject_HEAD void *native; } SslContextHead;
    """
    ctypedef struct SslSocketHead:
        void* native
        PyObject* context

ctypedef const void* (*MethodFunction)() noexcept nogil
ctypedef void* (*NewBioFunction)(const void*) noexcept nogil
ctypedef int (*FreeBioFunction)(void*) noexcept nogil
ctypedef int (*WriteFunction)(void*, const void*, int) noexcept nogil
ctypedef int (*ReadFunction)(void*, void*, int) noexcept nogil
ctypedef long (*ControlFunction)(void*, int, long, void*) noexcept nogil
ctypedef void (*SetBioFunction)(void*, void*, void*) noexcept nogil
ctypedef int (*QueryFunction)(const void*) noexcept nogil
ctypedef int (*ErrorFunction)(const void*, int) noexcept nogil
ctypedef void (*ClearFunction)() noexcept nogil
ctypedef unsigned long (*PeekFunction)() noexcept nogil
ctypedef const char* (*NameFunction)(unsigned long) noexcept nogil

cdef enum:
    # <openssl/bio.h>, <openssl/ssl.h>
    BIO_CTRL_RESET = 1
    BIO_CTRL_PENDING = 10
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_ZERO_RETURN = 6
    WRITTEN_MAX = 1 << 30  # bytes of one call, whose size is an int
    TAKEN_KEEP = 64 * 1024  # bytes of the buffer of records to send that are kept

cdef MethodFunction bio_s_mem
cdef NewBioFunction bio_new
cdef FreeBioFunction bio_free, bio_up_ref, ssl_shutdown
cdef WriteFunction bio_write, ssl_write
cdef ReadFunction bio_read, ssl_read
cdef ControlFunction bio_ctrl
cdef SetBioFunction ssl_set_bio
cdef QueryFunction ssl_pending
cdef ErrorFunction ssl_get_error
cdef ClearFunction err_clear_error
cdef PeekFunction err_peek_last_error
cdef NameFunction err_reason_error_string

cdef bint available = False


cdef bint has_expected_layout() except -1:
    """Return whether the structures of `ssl` are as they are described above: a context is found where it should be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)._sslobj
    if type(tls).__basicsize__ < <Py_ssize_t>sizeof(SslSocketHead):
        return False
    return (<SslSocketHead*><PyObject*>tls).context == <PyObject*>context \
        and (<SslSocketHead*><PyObject*>tls).native != NULL


cdef int load() except -1:
    """Find the functions; without them, nothing is available."""
    global bio_s_mem, bio_new, bio_free, bio_up_ref, bio_read, bio_write, bio_ctrl, ssl_set_bio, ssl_read, ssl_write
    global ssl_pending, ssl_get_error, ssl_shutdown, err_clear_error, err_peek_last_error, err_reason_error_string
    global available
    cdef void* library
    cdef bytes path = getattr(_ssl, "__file__", "").encode()
    if not path or not has_expected_layout():
        return 0
    library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD)
    if library == NULL:
        return 0
    bio_s_mem = <MethodFunction>dlsym(library, b"BIO_s_mem")
    bio_new = <NewBioFunction>dlsym(library, b"BIO_new")
    bio_free = <FreeBioFunction>dlsym(library, b"BIO_free")
    bio_up_ref = <FreeBioFunction>dlsym(library, b"BIO_up_ref")
    bio_read = <ReadFunction>dlsym(library, b"BIO_read")
    bio_write = <WriteFunction>dlsym(library, b"BIO_write")
    bio_ctrl = <ControlFunction>dlsym(library, b"BIO_ctrl")
    ssl_set_bio = <SetBioFunction>dlsym(library, b"SSL_set_bio")
    ssl_read = <ReadFunction>dlsym(library, b"SSL_read")
    ssl_write = <WriteFunction>dlsym(library, b"SSL_write")
    ssl_pending = <QueryFunction>dlsym(library, b"SSL_pending")
    ssl_get_error = <ErrorFunction>dlsym(library, b"SSL_get_error")
    ssl_shutdown = <FreeBioFunction>dlsym(library, b"SSL_shutdown")
    err_clear_error = <ClearFunction>dlsym(library, b"ERR_clear_error")
    err_peek_last_error = <PeekFunction>dlsym(library, b"ERR_peek_last_error")
    err_reason_error_string = <NameFunction>dlsym(library, b"ERR_reason_error_string")
    available = (
        bio_s_mem != NULL and bio_new != NULL and bio_free != NULL and bio_up_ref != NULL and bio_read != NULL
        and bio_write != NULL
        and bio_ctrl != NULL and ssl_set_bio != NULL and ssl_read != NULL and ssl_write != NULL
        and ssl_pending != NULL and ssl_get_error != NULL and ssl_shutdown != NULL and err_clear_error != NULL
        and err_peek_last_error != NULL and err_reason_error_string != NULL
    )
    return 0


load()


cdef inline void clear_errors() noexcept:
    """Forget the errors of calls before, which would mislead the next SSL_get_error, here or in `ssl`. Hot path.

    To look whether there are any costs a tenth of clearing.
    """
    if err_peek_last_error():
        err_clear_error()


def is_available():
    """Return whether the functions of OpenSSL were found."""
    return available


cdef class Records:
    """The records of all established connections of a listener: two buffers, which each call leaves empty.

    The connection is the SSL structure that `adopt` has returned. It lives as long as its object of `ssl`.
    """

    def __cinit__(self):
        self.taken = Buffer()
        if available:
            self.incoming = bio_new(bio_s_mem())
            self.outgoing = bio_new(bio_s_mem())
            if self.incoming == NULL or self.outgoing == NULL:
                raise MemoryError

    def __dealloc__(self):
        if available:
            bio_free(self.incoming)
            bio_free(self.outgoing)

    cdef void* adopt(self, tls) noexcept:
        """Return the SSL structure of an ssl.SSLObject, which uses the buffers of this object from now on.

        Return NULL if OpenSSL is not available. The handshake must be complete, and its buffers empty.
        """
        cdef void* native
        if not available:
            return NULL
        native = (<SslSocketHead*><PyObject*>tls._sslobj).native
        # It frees its former buffers, and holds these.
        bio_up_ref(self.incoming)
        bio_up_ref(self.outgoing)
        ssl_set_bio(native, self.incoming, self.outgoing)
        return native

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Take bytes that a connection has received. Hot path."""
        if bio_write(self.incoming, data, <int>size) != size:
            raise MemoryError
        return 0

    cdef ReadResult read(self, void* tls, uint8_t* plain, Py_ssize_t room, Py_ssize_t* size) noexcept:
        """Decrypt what one record has, at most `room` bytes. Hot path."""
        cdef int count, error
        clear_errors()
        count = ssl_read(tls, plain, <int>room)
        if count > 0:
            size[0] = count
            return READ_DATA
        error = ssl_get_error(tls, count)
        if error == SSL_ERROR_WANT_READ:
            return READ_NOTHING
        return READ_END if error == SSL_ERROR_ZERO_RETURN else READ_FAILED

    cdef bint has_more(self, void* tls) noexcept:
        """Return whether bytes are left, encrypted or not. Hot path."""
        return bio_ctrl(self.incoming, BIO_CTRL_PENDING, 0, NULL) > 0 or ssl_pending(tls) > 0

    cdef int forget_received(self) noexcept:
        """Empty the buffer of what was received."""
        bio_ctrl(self.incoming, BIO_CTRL_RESET, 0, NULL)
        return 0

    cdef int write(self, void* tls, const uint8_t* data, Py_ssize_t size) noexcept:
        """Encrypt bytes for `take_written`. If the connection is broken, nothing is. Hot path."""
        cdef Py_ssize_t at = 0
        cdef int count
        clear_errors()
        while at < size:
            count = ssl_write(tls, data + at, <int>min(size - at, <Py_ssize_t>WRITTEN_MAX))
            if count <= 0:
                clear_errors()
                break
            at += count
        return 0

    cdef int write_end(self, void* tls) noexcept:
        """Write close_notify for `take_written`; that of the peer is not waited for (RFC 8446 section 6.1)."""
        clear_errors()
        ssl_shutdown(tls)
        clear_errors()
        return 0

    cdef Slice take_written(self) except *:
        """Return the records to send, borrowed until the next call. Hot path."""
        cdef long size = bio_ctrl(self.outgoing, BIO_CTRL_PENDING, 0, NULL)
        cdef uint8_t* data
        if size <= 0:
            return Slice(NULL, 0)
        self.taken.clear(TAKEN_KEEP)
        data = self.taken.reserve(size)
        return Slice(data, bio_read(self.outgoing, data, <int>size))

    cdef str failure(self):
        """Return OpenSSL's words for why the last `read` has failed, once."""
        cdef const char* words = err_reason_error_string(err_peek_last_error())
        clear_errors()
        return "unexpected end" if words == NULL else (<bytes>words).decode()
