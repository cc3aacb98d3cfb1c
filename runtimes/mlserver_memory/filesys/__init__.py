"""Conversations in files."""

from .store import FileSysStore

__all__ = ["FileSysStore"]
