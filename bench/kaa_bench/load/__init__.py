"""Load generators and sinks, native."""
