"""The longest stops of a gateway's event loop: how long a device waits while bounds are filled and emptied."""
