"""What can be extracted: one module per dataset, each a layer, its looks and its image."""
