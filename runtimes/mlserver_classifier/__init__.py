"""A classifier that routes: a conversation in, exactly one route out."""

from .runtime import Classifier
from .settings import ClassifierSettings

__all__ = ["Classifier", "ClassifierSettings"]
