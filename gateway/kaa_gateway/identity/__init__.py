"""Who is it: resolving an endpoint token to an endpoint."""
