"""ChaCha20-Poly1305, the authenticated encryption of KP/UDP, done by the libcrypto of the system.

The library is opened when it is first needed: nothing is linked, so a wheel carries no copy that misses the security
updates of the system. One context of a thread serves all keys, because a context for each key would cost more memory
than a session. The contexts of a thread that ends are not freed.

Source: RFC 8439 section 2.8; EVP_EncryptInit(3).
"""

cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char* name, int flags)
    void* dlsym(void* library, const char* name)
    enum:
        RTLD_NOW

cdef extern from *:
    """
    static __thread void *kaa_encrypting, *kaa_decrypting;
    """
    void* encrypting "kaa_encrypting"  # contexts of this thread, or NULL
    void* decrypting "kaa_decrypting"

cdef enum:
    DECRYPT = 0
    ENCRYPT = 1
    # Commands of EVP_CIPHER_CTX_ctrl, in <openssl/evp.h>
    GET_TAG = 0x10
    SET_TAG = 0x11

ctypedef void* (*NewContext)() noexcept nogil
ctypedef const void* (*GetCipher)() noexcept nogil
ctypedef int (*Initialize)(
    void* context, const void* cipher, void* engine, const uint8_t* key, const uint8_t* nonce, int direction
) noexcept nogil
ctypedef int (*Update)(void* context, uint8_t* out, int* written, const uint8_t* data, int size) noexcept nogil
ctypedef int (*Finish)(void* context, uint8_t* out, int* written) noexcept nogil
ctypedef int (*Control)(void* context, int command, int size, void* argument) noexcept nogil

cdef tuple LIBRARIES = (b"libcrypto.so.3", b"libcrypto.so.4", b"libcrypto.so.1.1", b"libcrypto.so")

cdef Initialize initialize
cdef Update update
cdef Finish finish
cdef Control control
cdef NewContext new_context
cdef const void* cipher = NULL


cdef void* function_of(void* library, const char* name) except NULL:
    """Return the address of a function of libcrypto."""
    cdef void* found = dlsym(library, name)
    if found == NULL:
        raise OSError(f"libcrypto has no {name.decode()}")
    return found


cdef bint has_contexts() noexcept nogil:
    """Return whether this thread has its contexts; make them if it has none. Hot path."""
    global encrypting, decrypting
    cdef void* first
    cdef void* second
    if decrypting != NULL:
        return True
    if cipher == NULL:
        return False
    first = new_context()
    second = new_context()
    if first == NULL or second == NULL or initialize(first, cipher, NULL, NULL, NULL, ENCRYPT) != 1 \
            or initialize(second, cipher, NULL, NULL, NULL, DECRYPT) != 1:
        return False
    encrypting = first
    decrypting = second
    return True


def load():
    """Open libcrypto, if that has not been done. Raises OSError if the system has none that knows the cipher."""
    global initialize, update, finish, control, new_context, cipher
    cdef void* library = NULL
    cdef const char* name
    if cipher != NULL:
        return
    for each in LIBRARIES:
        name = each
        library = dlopen(name, RTLD_NOW)
        if library != NULL:
            break
    else:
        raise OSError("the system has no libcrypto")
    initialize = <Initialize>function_of(library, b"EVP_CipherInit_ex")
    update = <Update>function_of(library, b"EVP_CipherUpdate")
    finish = <Finish>function_of(library, b"EVP_CipherFinal_ex")
    control = <Control>function_of(library, b"EVP_CIPHER_CTX_ctrl")
    new_context = <NewContext>function_of(library, b"EVP_CIPHER_CTX_new")
    cipher = (<GetCipher>function_of(library, b"EVP_chacha20_poly1305"))()
    if not has_contexts():
        cipher = NULL
        raise OSError("libcrypto does not provide ChaCha20-Poly1305")


cdef bint seal(
    const uint8_t* key, const uint8_t* nonce, Slice header, const uint8_t* plain, Py_ssize_t size, uint8_t* sealed
) noexcept nogil:
    """Encrypt `size` bytes, and write them and the tag: TAG_SIZE bytes more. Return False on failure. Hot path.

    `load` has been called. A nonce must never come twice with a key.
    """
    cdef int written = 0
    return (
        has_contexts()
        and initialize(encrypting, NULL, NULL, key, nonce, ENCRYPT) == 1
        and update(encrypting, NULL, &written, header.data, <int>header.size) == 1
        and update(encrypting, sealed, &written, plain, <int>size) == 1
        and finish(encrypting, sealed + size, &written) == 1
        and control(encrypting, GET_TAG, TAG_SIZE, sealed + size) == 1
    )


cdef bint unseal(
    const uint8_t* key, const uint8_t* nonce, Slice header, const uint8_t* sealed, Py_ssize_t size, uint8_t* plain
) noexcept nogil:
    """Decrypt `size` bytes, the tag among them. Return False if they or the header are not authentic. Hot path.

    `plain` takes `size - TAG_SIZE` bytes, which mean nothing unless the result is True. `load` has been called.
    """
    cdef int written = 0
    if size < TAG_SIZE or not has_contexts():
        return False
    size -= TAG_SIZE
    return (
        initialize(decrypting, NULL, NULL, key, nonce, DECRYPT) == 1
        and control(decrypting, SET_TAG, TAG_SIZE, <void*>(sealed + size)) == 1
        and update(decrypting, NULL, &written, header.data, <int>header.size) == 1
        and update(decrypting, plain, &written, sealed, <int>size) == 1
        and finish(decrypting, plain + size, &written) == 1
    )


# ---------------------------------------------------------------- for Python

def encrypt(bytes key not None, bytes nonce not None, bytes header not None, bytes plain not None):
    """Return the encrypted bytes and tag. Raises ValueError if key or nonce has a wrong size, OSError as `load`."""
    cdef bytearray sealed = bytearray(len(plain) + TAG_SIZE)
    if len(key) != KEY_SIZE or len(nonce) != NONCE_SIZE:
        raise ValueError("a key has 32 bytes, and a nonce 12")
    load()
    if not seal(key, nonce, Slice(header, len(header)), plain, len(plain), sealed):
        raise OSError("libcrypto cannot encrypt")
    return bytes(sealed)


def decrypt(bytes key not None, bytes nonce not None, bytes header not None, bytes sealed not None):
    """Return the plain bytes, or None if they are not authentic. Raises ValueError as `encrypt`."""
    cdef bytearray plain = bytearray(max(len(sealed) - TAG_SIZE, 0))
    if len(key) != KEY_SIZE or len(nonce) != NONCE_SIZE:
        raise ValueError("a key has 32 bytes, and a nonce 12")
    load()
    return bytes(plain) if unseal(key, nonce, Slice(header, len(header)), sealed, len(sealed), plain) else None
