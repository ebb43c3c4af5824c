"""The connections and endpoints of one application version or tenant. See population.pyx."""

class Population:
    wider: Population | None
    connections_max: int
    endpoints_max: int
    connections: int
    endpoints: int
    connections_elsewhere: int
    endpoints_elsewhere: int
    def set_limits(self, connections_max: int, endpoints_max: int) -> None: ...
    def set_elsewhere(self, connections: int, endpoints: int) -> None: ...
