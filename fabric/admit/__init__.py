"""What a topic accepts: the same questions at the gateway and again at every reader. Pure."""
