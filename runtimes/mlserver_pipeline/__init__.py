"""Runs Seldon Pipeline manifests in this process.

Each folder imports only the folders above it:

- `manifests/` reads and checks manifests
- `engine/` decides which step runs when
- `calls/` calls the steps
- `api/` answers clients
- `drawing/` draws manifests

`runtime.py` is the model that MLServer loads. `service.py` connects it to its steps and to the server.
"""

from .manifests.manifest import PipelineManifest, read_manifests
from .runtime import Pipeline
from .settings import PipelineSettings

__all__ = ["Pipeline", "PipelineManifest", "PipelineSettings", "read_manifests"]
