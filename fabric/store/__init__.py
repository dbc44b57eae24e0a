"""What a process keeps on disk: policy copies, audit log, the agent's sealed state."""
