"""A soak of several gateways as one server: clients that roam, take over, are killed and sent away, and a ledger."""
