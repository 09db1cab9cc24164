"""From polygons to partial sums: planning, reading blocks, reducing and merging them."""
