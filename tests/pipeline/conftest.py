"""Fixtures of the samples' tests."""

from pipeline_lab import lab

__all__ = ["lab"]
