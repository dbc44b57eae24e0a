"""The gateway: a produce-only door that speaks the Kafka protocol and admits what may pass.

Pure: wire, requests, answers, apis, cluster, replay, judge and the machine. The
shell (server, upstream, refusals, view, run) moves bytes and decides nothing.
"""
