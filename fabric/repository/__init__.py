"""How the policy travels: the signed repository, read by every part, written by few."""
