"""Runtime that chooses one route for a conversation."""

from .runtime import Classifier
from .settings import ClassifierSettings

__all__ = ["Classifier", "ClassifierSettings"]
