"""Manifests, discovery, references, trust and verified loading of components."""
