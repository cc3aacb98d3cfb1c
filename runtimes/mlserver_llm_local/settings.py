"""Settings of the local runtime, with the LLM Module's keys."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from mlserver_chat import PromptSettings, Settings
from mlserver_chat.llm.options import DEFAULT_ALLOWED, merge_options
from mlserver_chat.settings import Options

from .options import GenerationOptions

_ELSEWHERE = (
    "backend '{0}' is not part of this runtime: serve the model with {0}'s own OpenAI-compatible server and set "
    "'config.base_url' of an mlserver_llm_api.LLMRuntime to it, or choose backend 'transformers'"
)


class TransformersSettings(Settings):
    """A model run by transformers."""

    model: str
    """Folder with the weights, relative to `model-settings.json` (`.`: beside it), or an id of the Hugging Face Hub.
    Only safetensors are read, and no code of the model's repository is run."""
    load_kwargs: Options = {}
    """More arguments of `from_pretrained`, e.g. `revision` or `quantization_config`. `trust_remote_code` is refused."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`: a GPU if there is one."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format of the weights; `auto`: float32 on a CPU, float16 on a GPU."""
    max_tokens: int = Field(default=256, ge=-1)
    """Most tokens of an answer; -1: as many as the context holds."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of prompt and answer together; default and upper limit: what the model was made for."""
    default_generate_kwargs: dict[str, Any] = {}
    """Generation options of this model; below `llm_parameters`."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of a GPU's memory that this process may use; without a GPU it is ignored, with a warning."""
    tensor_parallel_size: int = 1
    """1: a model is on one device. For more, see `device_map` of `from_pretrained`, or the API runtime."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads for computing; default: 1 for a model under 50 million parameters, else as many as the process may
    use CPUs. With several worker processes, give each its share."""

    @field_validator("tensor_parallel_size")
    @classmethod
    def _one_device(cls, value: int) -> int:
        if value != 1:
            raise ValueError(
                'this backend runs a model on one device; set load_kwargs {"device_map": "auto"} to spread it, or '
                "serve it with vLLM and set 'config.base_url' of an mlserver_llm_api.LLMRuntime to that server"
            )
        return value

    @field_validator("load_kwargs")
    @classmethod
    def _nothing_unsafe(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "trust_remote_code" in value or "code_revision" in value:
            raise ValueError(
                "'trust_remote_code' and 'code_revision' are refused: no code of a model's repository is run"
            )
        if value.get("use_safetensors", True) is not True:
            raise ValueError("'use_safetensors' can't be switched off: other formats can hold code")
        if "/" in str(value.get("attn_implementation", "")):
            raise ValueError("'attn_implementation' from the Hub is refused: no code of a repository is run")
        return value


class TransformersConfig(Settings):
    """The model, for backend `transformers`."""

    model_type: Literal["chat.completions"] = "chat.completions"
    """What the model does. `chat.completions` is supported."""
    model_settings: TransformersSettings
    """Which model, where and how."""


class CustomConfig(Settings):
    """The model, for a backend of the user's."""

    model_type: Literal["chat.completions"] = "chat.completions"
    """What the model does. `chat.completions` is supported."""
    model_settings: Options = {}
    """Keyword arguments of the backend's class."""


class LocalSettings(PromptSettings):
    """Settings of `mlserver_llm_local.runtime.Local`, under `parameters.extra`."""

    default_options = DEFAULT_ALLOWED | {"n", "ignore_eos", "adapter"}

    backend: str = "transformers"
    """`transformers`, or the dotted name of a `ChatBackend` of yours, in a module beside `model-settings.json` or
    installed."""
    config: TransformersConfig | CustomConfig = Field(default_factory=dict[str, Any], validate_default=True)
    """The model."""

    @field_validator("backend")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in ("vllm", "deepspeed"):
            raise ValueError(_ELSEWHERE.format(value))
        if value != "transformers" and "." not in value:
            raise ValueError("expected 'transformers' or a dotted name such as 'my_module.MyBackend'")
        return value

    @field_validator("config", mode="before")
    @classmethod
    def _of_backend(cls, value: Any, info: ValidationInfo) -> Any:
        kind = CustomConfig if "." in info.data.get("backend", "") else TransformersConfig
        return kind.model_validate(value)

    def check_invocation(self, config: Mapping[str, Any]) -> None:
        """Refuse what the transformers backend doesn't have; a backend of the user's may have anything."""
        if isinstance(self.config, TransformersConfig):
            GenerationOptions.of(merge_options(self.defaults, self.llm_parameters, config))

    @property
    def defaults(self) -> dict[str, Any]:
        """The model's own generation options."""
        if isinstance(self.config, CustomConfig):
            return {}
        settings = self.config.model_settings
        return {"max_tokens": settings.max_tokens, **settings.default_generate_kwargs}
