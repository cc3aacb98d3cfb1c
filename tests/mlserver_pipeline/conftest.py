"""Fixtures of the pipeline's tests."""

from pipeline_lab import lab

__all__ = ["lab"]
