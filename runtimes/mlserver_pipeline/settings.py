"""Settings of the pipeline runtime."""

from pydantic import Field

from mlserver_chat import Settings
from mlserver_chat.limits import Limits


class PipelineSettings(Settings):
    """Settings under `parameters.extra`."""

    manifest: str | list[str]
    """Manifest file, or several, relative to `model-settings.json`. Pipelines loaded together can read one another."""
    models: str | dict[str, str] = {}
    """V2 servers that serve the steps, if this process doesn't: one URL (`http://host:port` or `grpc://host:port`) for
    all steps, or a mapping from steps to URLs."""
    load_timeout: float = Field(default=60.0, gt=0)
    """Seconds to wait for the models of the steps while loading."""
    step_timeout: float = Field(default=120.0, gt=0)
    """Seconds for one call of a step, streamed or not. A step that takes longer fails with DeadlineExceeded."""
    trace_values: bool = True
    """Whether a trace shows the data of tensors, up to 10 elements of 200 characters each, or only their names."""
    core2_addressing: bool = True
    """Whether requests may be addressed in Core 2's way: by the header `Seldon-Model`, and by names such as
    `<pipeline>.pipeline`. The header wins over the path, so behind a proxy that allows some paths set it to false. One
    Pipeline with false switches it off for the whole server; `/v2/pipelines/<pipeline>/infer` stays."""
    limits: Limits = Limits()
    """Limits on what one request may cost."""
