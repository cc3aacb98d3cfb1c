"""Conversations in a SQL database."""

from .store import SqlStore

__all__ = ["SqlStore"]
