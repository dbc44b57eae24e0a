"""HTTP: the health and metrics pages, and the clients of authority and refusal log."""
