"""What the replicas of a gateway share: who has which session. Over NATS, and nothing else."""
