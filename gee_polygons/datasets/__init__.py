"""What can be extracted: one module per dataset, each with a layer, visualization parameters and an image."""
