"""Names conversations in stores."""

from mlserver_chat.requests.identity import hashed


def conversation_id(namespace: str, memory_id: str) -> str:
    """SHA-256 of namespace and `memory_id`, 64 hex digits. NUL parts them, which no `memory_id` holds."""
    return hashed(f"{namespace}\0{memory_id}" if namespace else memory_id)
