"""What the page of `gee_polygons.report` is made of: its data, its style and its script."""
