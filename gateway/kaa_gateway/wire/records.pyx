"""Avro records of any schema that occurs in messages between services, from Python values.

The two messages of 4/ESP, which carry every message of a device, have a codec of their own (esp.pyx). Decoding is
fastavro's, which is also the oracle for this module in the tests.

Source: Apache Avro 1.11, "Binary encoding".
"""

from cpython.bytes cimport PyBytes_AsStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int32_t, int64_t, uint8_t

from kaa_gateway.wire.avro cimport LONG_SIZE_MAX, put_long
from kaa_gateway.wire.buffer cimport Buffer

cdef object required = object()
cdef dict SIMPLE = {
    "string": STRING, "bytes": BYTES, "long": LONG, "int": INT, "boolean": BOOLEAN, "double": DOUBLE,
}
cdef frozenset IN_UNIONS = frozenset([*SIMPLE, "float", "null"])


cdef class Type:
    """Writes the values of an Avro type: string, bytes, long, int, boolean, double, union, array, map, record.

    A union is one with null, or one of simple types. In the latter the Python type of a value decides: an int is an
    int, a long, or a double if it is too large for both, and a float is a double.
    """

    def __init__(self, schema not None):
        """Take a schema as fastavro parses it. Raise NotImplementedError for another type."""
        if isinstance(schema, dict) and schema["type"] in SIMPLE:
            schema = schema["type"]
        if isinstance(schema, str) and schema in SIMPLE:
            self.kind = SIMPLE[schema]
        elif isinstance(schema, list) and len(schema) == 2 and "null" in schema:
            self.kind = OPTIONAL
            self.null_branch = schema.index("null")
            self.item = Type(schema[1 - self.null_branch])
        elif isinstance(schema, list) and all([isinstance(each, str) and each in IN_UNIONS for each in schema]):
            self.kind = UNION
            self.branches = {name: place for place, name in enumerate(schema)}
        elif isinstance(schema, dict) and schema["type"] == "array":
            self.kind = ARRAY
            self.item = Type(schema["items"])
        elif isinstance(schema, dict) and schema["type"] == "map":
            self.kind = MAP
            self.item = Type(schema["values"])
        elif isinstance(schema, dict) and schema["type"] == "record":
            self.kind = RECORD
            self.names = [field["name"] for field in schema["fields"]]
            self.types = [Type(field["type"]) for field in schema["fields"]]
            self.defaults = [field.get("default", required) for field in schema["fields"]]
        else:
            raise NotImplementedError(f"Avro type {schema!r}")

    def encode(self, value not None):
        """Return the datum of a value. Raise TypeError, KeyError or OverflowError for one that does not fit."""
        cdef Buffer out = Buffer()
        self.write(out, value)
        return out.copy()

    cdef int write_branch(self, Buffer out, value) except -1:
        """Write the branch of a union of simple types that takes a value."""
        cdef Type branch
        for name in branches_of(value):
            place = self.branches.get(name)
            if place is not None:
                append_long(out, place)
                if name == "null":
                    return 0
                branch = Type.__new__(Type)
                branch.kind = SIMPLE[name]
                return branch.write(out, value)
        raise TypeError(f"the union has no type for {type(value).__name__}")

    cdef int write(self, Buffer out, value) except -1:
        cdef int64_t number
        cdef int32_t small
        cdef const char* text
        cdef char* data
        cdef Py_ssize_t size, place
        if self.kind == STRING:
            text = PyUnicode_AsUTF8AndSize(value, &size)
            append_long(out, size)
            out.append(text, size)
        elif self.kind == BYTES:
            PyBytes_AsStringAndSize(value, &data, &size)
            append_long(out, size)
            out.append(data, size)
        elif self.kind == LONG:
            number = value
            append_long(out, number)
        elif self.kind == INT:
            small = value
            append_long(out, small)
        elif self.kind == BOOLEAN:
            append_long(out, -1 if value else 0)  # a byte, 1 or 0
        elif self.kind == DOUBLE:
            append_double(out, value)
        elif self.kind == UNION:
            self.write_branch(out, value)
        elif self.kind == OPTIONAL:
            append_long(out, self.null_branch if value is None else 1 - self.null_branch)
            if value is not None:
                self.item.write(out, value)
        elif self.kind == ARRAY:
            if value:
                append_long(out, len(value))
                for each in value:
                    self.item.write(out, each)
            append_long(out, 0)
        elif self.kind == MAP:
            if value:
                append_long(out, len(value))
                for key, each in value.items():
                    text = PyUnicode_AsUTF8AndSize(key, &size)
                    append_long(out, size)
                    out.append(text, size)
                    self.item.write(out, each)
            append_long(out, 0)
        else:
            for place in range(len(self.names)):
                found = value.get(self.names[place], self.defaults[place])
                if found is required:
                    raise KeyError(self.names[place])
                (<Type>self.types[place]).write(out, found)
        return 0


cdef tuple branches_of(value):
    """Return the names of the types that hold a value, the smallest first."""
    if value is None:
        return ("null",)
    if isinstance(value, bool):
        return ("boolean",)
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return ("int", "long", "double")
        return ("long", "double") if -(2**63) <= value < 2**63 else ("double",)
    if isinstance(value, float):
        return ("double",)
    if isinstance(value, str):
        return ("string",)
    return ("bytes",) if isinstance(value, bytes) else ()


cdef int append_double(Buffer out, double value) except -1:
    # Little-endian, as the machines that this is built for.
    out.append(<const uint8_t*>&value, sizeof(value))
    return 0


cdef int append_long(Buffer out, int64_t value) except -1:
    out.size = put_long(out.reserve(LONG_SIZE_MAX), value) - out.data
    return 0
