"""Avro records of any schema that occurs in messages between services, from Python values.

The two messages of 4/ESP, which carry every message of a device, have a codec of their own (esp.pyx). Decoding is
fastavro's, which is also the oracle for this module in the tests.

Source: Apache Avro 1.11, "Binary encoding".
"""

from cpython.bytes cimport PyBytes_AsStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int32_t, int64_t

from kaa_gateway.wire.avro cimport LONG_SIZE_MAX, put_long
from kaa_gateway.wire.buffer cimport Buffer

cdef object required = object()
cdef dict SIMPLE = {"string": STRING, "bytes": BYTES, "long": LONG, "int": INT}


cdef class Type:
    """Writes the values of an Avro type: string, bytes, long, int, union with null, array, map, record."""

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


cdef int append_long(Buffer out, int64_t value) except -1:
    out.size = put_long(out.reserve(LONG_SIZE_MAX), value) - out.data
    return 0
