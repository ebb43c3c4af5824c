"""The command `kaa-ext`."""
