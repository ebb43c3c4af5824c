"""What the gateway tells the cluster about its endpoints."""
