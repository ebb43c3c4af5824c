"""Clients that need not be asked about, for native code: a client that has been admitted lately mostly comes again."""

from kaa_gateway.identity.digests cimport digest_of_slices


cdef class KnownClients:
    """Finds clients by their user names and passwords in a cache of an authenticator, whose digests have this key."""

    def __init__(self, bytes key not None, Cache admitted not None):
        self.key = key
        self.admitted = admitted

    cdef object find(self, Slice user_name, Slice password, certificate):
        """Return the client with these credentials, or None if the authenticator is to be asked.

        The user name is in UTF-8. An absent password has no bytes.
        """
        admitted = self.admitted.find(digest_of_slices(self.key, user_name, password, certificate))
        return (<tuple>admitted)[1] if isinstance(admitted, tuple) else None
