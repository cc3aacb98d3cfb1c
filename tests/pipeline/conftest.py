"""Fixtures of these tests."""

from pipeline_lab import lab

__all__ = ["lab"]
