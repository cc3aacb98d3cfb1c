"""Settings of the pipeline runtime."""

from pydantic import Field

from mlserver_chat import Settings
from mlserver_chat.limits import Limits


class PipelineSettings(Settings):
    """Settings under `parameters.extra`."""

    manifest: str | list[str]
    """Manifest file, or several, relative to `model-settings.json`. Pipelines loaded together can read one another."""
    models: str | dict[str, str] = {}
    """Where the steps are, if not in this process: the base URL of a V2 server (`http://host:port` or
    `grpc://host:port`) for all of them, or one for each of some."""
    load_timeout: float = Field(default=60.0, gt=0)
    """Seconds to wait while loading for the models that are steps."""
    step_timeout: float = Field(default=120.0, gt=0)
    """Seconds for one call of a step; then it has failed with DeadlineExceeded, as in Core 2."""
    trace_values: bool = True
    """Whether a trace shows the data of tensors, cut after 10 elements and 200 characters, or only their names."""
    limits: Limits = Limits()
    """Limits on what one request may cost."""
