"""The open archive of Cloud Optimized GeoTIFFs: index, tile headers, zones, pixels."""
