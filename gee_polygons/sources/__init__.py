"""Where pixels or statistics come from: the protocols in `base`, one module per kind of source."""
