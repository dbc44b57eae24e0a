"""The authority: enrols hosts, judges their evidence, and says who is trusted now.

`machine` decides, `ledger` remembers, `service` speaks HTTPS, `publisher` writes the
control topics, `topics` keeps topics and rights on the broker in step with the policy.
"""
