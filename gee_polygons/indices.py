"""The module `indices` of version 0.0.4, which had no names of its own: importing it does nothing."""
