"""The reference services, built on the SDK. Each has a function `register`, and `Settings` if it has any."""
