"""Writes files atomically and keeps caches."""
