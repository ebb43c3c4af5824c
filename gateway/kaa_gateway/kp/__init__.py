"""1/KP, common to all transports: resource paths and routes, sessions, uplink, downlink."""
