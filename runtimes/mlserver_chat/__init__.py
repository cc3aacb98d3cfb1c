"""Shared types of the suite: messages, tensors, prompts, settings, errors and the seams.

This package imports no runtime, no torch, no database driver and no LLM client.
"""

from .calls.client import BoundModel, RemoteClient, SameProcessClient, bind_llm, request_on_behalf
from .errors import (
    ChatError,
    Conflict,
    InternalError,
    InvalidInput,
    NotReachable,
    RateLimited,
    SettingsError,
    Stalled,
    UpstreamFailed,
)
from .llm.steps import ChatStep, PromptSettings
from .messages.codec import decode_history, decode_messages, encode_history, encode_messages, read_conversation
from .messages.types import Completion, CompletionBuilder, CompletionChunk, Message, Part
from .requests.identity import AppendKey, append_key, base_name, memory_id_of, request_headers, request_identity
from .runtime import Runtime
from .seams import ChatBackend, ChoiceBackend, ModelClient, Params, Scorer
from .settings import Secret, Settings, SiblingSettings, data_folder, load_settings, settings_folder
from .stores import ConversationInfo, MemoryStore, StoredMessage, StoreStats, Window

__all__ = [
    "AppendKey",
    "BoundModel",
    "ChatBackend",
    "ChatError",
    "ChatStep",
    "ChoiceBackend",
    "Completion",
    "CompletionBuilder",
    "CompletionChunk",
    "Conflict",
    "ConversationInfo",
    "InternalError",
    "InvalidInput",
    "MemoryStore",
    "Message",
    "ModelClient",
    "NotReachable",
    "Params",
    "Part",
    "PromptSettings",
    "RateLimited",
    "RemoteClient",
    "Runtime",
    "SameProcessClient",
    "Scorer",
    "Secret",
    "Settings",
    "SettingsError",
    "SiblingSettings",
    "Stalled",
    "StoreStats",
    "StoredMessage",
    "UpstreamFailed",
    "Window",
    "append_key",
    "base_name",
    "bind_llm",
    "data_folder",
    "decode_history",
    "decode_messages",
    "encode_history",
    "encode_messages",
    "load_settings",
    "memory_id_of",
    "read_conversation",
    "request_headers",
    "request_identity",
    "request_on_behalf",
    "settings_folder",
]
