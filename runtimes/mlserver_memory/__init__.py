"""Conversational memory: a windowed store of conversations as a V2 model."""

from .inmemory import InMemoryStore
from .opening import open_store
from .runtime import ConversationalMemory
from .settings import FileSysSettings, MemorySettings, SqlSettings

__all__ = [
    "ConversationalMemory",
    "FileSysSettings",
    "InMemoryStore",
    "MemorySettings",
    "SqlSettings",
    "open_store",
]
