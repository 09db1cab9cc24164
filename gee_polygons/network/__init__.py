"""Reads bytes from local files, HTTP, S3 and Google Cloud Storage.

``places`` resolves paths and URLs, ``local`` reads local files, ``http`` sends one request, ``hosts`` decides when, and
``request`` repeats it until it is answered. ``ranges`` merges many ranges into few requests, and ``remote_file`` offers
a remote file as a Python file object.
"""
