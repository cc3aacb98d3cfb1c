"""Reads, checks and compiles manifests."""
