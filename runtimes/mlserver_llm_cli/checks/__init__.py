"""`mlserver-llm check`: finds faults of a model repository without starting a server."""

from .findings import Finding
from .repository import Report, check_paths

__all__ = ["Finding", "Report", "check_paths"]
