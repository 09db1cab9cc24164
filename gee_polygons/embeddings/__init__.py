"""Mathematics of embedding vectors, without I/O."""
