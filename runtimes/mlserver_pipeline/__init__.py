"""A Seldon Pipeline manifest, run in this process.

Each folder imports only those above it:

- `manifests/`: what a manifest says, and whether it can work
- `engine/`: what fires when
- `calls/`: how a step is called
- `api/`: what clients see
- `drawing/`: pictures, made of manifests alone

`runtime.py` is the model that MLServer loads, `service.py` what that holds once its steps are ready.
"""

from .manifests.manifest import PipelineManifest, read_manifests
from .runtime import Pipeline
from .settings import PipelineSettings

__all__ = ["Pipeline", "PipelineManifest", "PipelineSettings", "read_manifests"]
