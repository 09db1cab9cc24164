"""Private parts of the Earth Engine source, one idea each."""
