from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

# Numbers and words of text protocols. Each writer returns the position behind what it wrote.

cdef enum:
    DECIMAL_DIGITS_MAX = 20  # of a 64-bit number
    PADDED_DIGITS = 8


cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_size, const void* needle, size_t needle_size)


cdef inline uint8_t* put_text(uint8_t* at, bytes text) noexcept:
    memcpy(at, PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text))
    return at + PyBytes_GET_SIZE(text)


cdef inline uint8_t* put_decimal(uint8_t* at, Py_ssize_t value) noexcept nogil:
    # Write a non-negative number, at most DECIMAL_DIGITS_MAX digits. Hot path.
    cdef uint8_t[DECIMAL_DIGITS_MAX] digits
    cdef int count = 0
    while True:
        digits[count] = <uint8_t>(c"0" + value % 10)
        count += 1
        value //= 10
        if value == 0:
            break
    while count:
        count -= 1
        at[0] = digits[count]
        at += 1
    return at


cdef inline uint8_t* put_padded(uint8_t* at, uint32_t value) noexcept nogil:
    # Write a number below 100,000,000 with leading zeros: PADDED_DIGITS digits. Hot path.
    cdef const char* pairs = (
        "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
        "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"
    )
    cdef uint32_t high = value // 10_000, low = value % 10_000
    memcpy(at, pairs + 2 * (high // 100), 2)
    memcpy(at + 2, pairs + 2 * (high % 100), 2)
    memcpy(at + 4, pairs + 2 * (low // 100), 2)
    memcpy(at + 6, pairs + 2 * (low % 100), 2)
    return at + PADDED_DIGITS


cdef inline uint8_t* put_hex(uint8_t* at, uint32_t value, int digits) noexcept nogil:
    # Write the lowest `digits` hexadecimal digits of a number. Hot path.
    cdef const char* hexadecimal = "0123456789abcdef"
    cdef int i
    for i in range(digits):
        at[i] = <uint8_t>hexadecimal[(value >> 4 * (digits - 1 - i)) & 0xF]
    return at + digits
