"""Load tests: the fabric and its peers on one broker in one run, and what it costs.

`python -m loadtest` builds a world of its own (Kafka, PostgreSQL, TPMs, authority,
gateway), measures, and writes `loadtest/out/report.json` and a plot. Only code paths
that users call are measured; nothing here is part of the fabric.
"""
