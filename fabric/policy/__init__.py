"""What may be: levels, suites, approvals, datasets and rules, and decisions by them."""
