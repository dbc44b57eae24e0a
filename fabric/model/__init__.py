"""What moves: names, labels, schemas, changes, blocks, limits and errors. Pure."""
