"""Reads bytes from local files, HTTP, S3 and Google Cloud Storage."""
