from kaa_gateway.wire.esp cimport ExtensionDataView


cdef bytes encode_push(const ExtensionDataView* data)
cdef bytes event_id(const ExtensionDataView* data)
