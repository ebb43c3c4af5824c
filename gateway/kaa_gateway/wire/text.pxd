from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

# Numbers and words of text protocols. Each writer returns the position behind what it wrote.

cdef enum:
    DECIMAL_DIGITS_MAX = 20  # of a 64-bit number


cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_size, const void* needle, size_t needle_size)


cdef inline uint8_t* put_text(uint8_t* at, bytes text) noexcept:
    memcpy(at, <const char*>text, <size_t>len(text))
    return at + len(text)


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


cdef inline uint8_t* put_padded(uint8_t* at, Py_ssize_t value, int digits) noexcept nogil:
    # Write a non-negative number of at most `digits` digits, with leading zeros. Hot path.
    cdef int i
    for i in range(digits - 1, -1, -1):
        at[i] = <uint8_t>(c"0" + value % 10)
        value //= 10
    return at + digits


cdef inline uint8_t* put_hex(uint8_t* at, uint32_t value, int digits) noexcept nogil:
    # Write the lowest `digits` hexadecimal digits of a number. Hot path.
    cdef const char* hexadecimal = "0123456789abcdef"
    cdef int i
    for i in range(digits):
        at[i] = <uint8_t>hexadecimal[(value >> 4 * (digits - 1 - i)) & 0xF]
    return at + digits
