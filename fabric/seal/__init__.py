"""How it is kept: suites, epochs, grants, envelopes, and the reader's rules. Pure."""
