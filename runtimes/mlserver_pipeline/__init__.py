"""A Seldon Pipeline manifest, run in this process."""

from .manifests.manifest import PipelineManifest, read_manifests
from .runtime import Pipeline
from .settings import PipelineSettings

__all__ = ["Pipeline", "PipelineManifest", "PipelineSettings", "read_manifests"]
