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
    core2_addressing: bool = True
    """Whether requests may be addressed in Core 2's way: by the header `Seldon-Model`, and by names such as
    `<pipeline>.pipeline`. The header wins over the path, so behind a proxy that allows some paths set it to false. One
    Pipeline with false switches it off for the whole server; `/v2/pipelines/<pipeline>/infer` stays."""
    limits: Limits = Limits()
    """Limits on what one request may cost."""
