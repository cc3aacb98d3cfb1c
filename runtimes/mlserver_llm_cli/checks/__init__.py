"""`mlserver-llm check`: what would go wrong with a model repository, found without starting a server."""

from .findings import Finding
from .repository import Report, check_paths

__all__ = ["Finding", "Report", "check_paths"]
