"""Native load generators and servers that they are measured with."""
