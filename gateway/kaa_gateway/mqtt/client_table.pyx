"""The clients of a worker that can find their sessions again, by principal and client identifier.

Mostly one principal has a client identifier, so the client identifier alone is the key: a key of both would be a tuple
that is made, and hashed, for each question.
"""


cdef class ClientTable:
    """Entries of clients."""

    def __init__(self):
        self.found = {}

    cdef SessionEntry find(self, str principal, str client_id):
        """Return the entry of a client, or None."""
        cdef SessionEntry entry
        if not self.found:
            return None  # no client has asked for a session that it can find again
        found = self.found.get(client_id)
        if found is None:
            return None
        if isinstance(found, dict):
            return <SessionEntry>(<dict>found).get(principal)
        entry = <SessionEntry>found
        return entry if entry.principal == principal else None

    cdef int put(self, SessionEntry entry) except -1:
        """Add the entry of a client that has none."""
        found = self.found.get(entry.client_id)
        if found is None:
            self.found[entry.client_id] = entry
        elif isinstance(found, dict):
            (<dict>found)[entry.principal] = entry
        else:
            self.found[entry.client_id] = {(<SessionEntry>found).principal: found, entry.principal: entry}
        return 0

    cdef int remove(self, SessionEntry entry) except -1:
        """Remove an entry, if it is here."""
        found = self.found.get(entry.client_id)
        if found is entry:
            del self.found[entry.client_id]
        elif isinstance(found, dict) and (<dict>found).get(entry.principal) is entry:
            del (<dict>found)[entry.principal]
            if not found:
                del self.found[entry.client_id]
        return 0
