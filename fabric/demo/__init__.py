"""The whole fabric on one machine: servers on loopback, hosts with software TPMs, proofs."""
