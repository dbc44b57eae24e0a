"""Adapters to databases: sources that capture changes, sinks that apply them. I/O, no policy."""
