"""Sans-IO codecs in Cython: no sockets, no event loop, no clock. Bytes in, structures out, and back."""
