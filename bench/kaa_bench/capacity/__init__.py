"""Many idle MQTT connections: what they need, and what a lost NATS and a drain do to them."""
