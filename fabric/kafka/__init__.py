"""Kafka: the log behind ports.Log, following control topics, and administration."""
