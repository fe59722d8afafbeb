"""Repositories of files: resolve, fetch, cache, digest."""
