"""Identity: the endpoint of a token, and the client of credentials."""
