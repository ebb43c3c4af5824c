"""The SDK for extension services. Its public names are those of `kaa_ext`; it imports no service and no command."""
