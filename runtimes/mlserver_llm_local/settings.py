"""Settings of the local runtime, with the keys of the LLM Module."""

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
    """A model that transformers runs."""

    model: str
    """Folder with the weights, relative to `model-settings.json` (`.` is its own folder), or an id of the Hugging Face
    Hub. Only safetensors files are read, and no code from the model's repository runs."""
    load_kwargs: Options = {}
    """Further arguments of `from_pretrained`, e.g. `revision` or `quantization_config`, but not `trust_remote_code`."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`, which uses a GPU if there is one."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format of the weights. `auto` is float32 on a CPU and float16 on a GPU."""
    max_tokens: int = Field(default=256, ge=-1)
    """Most tokens of an answer, unless the request or its prompt says otherwise. -1 is as many as the context holds."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of prompt and answer together. Default and upper limit: the context length that the model was made for."""
    default_generate_kwargs: dict[str, Any] = {}
    """Generation options of this model. `llm_parameters` override them."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of a GPU's memory that this process may use. Ignored with a warning if there is no GPU."""
    tensor_parallel_size: int = 1
    """Must be 1, because a model runs on one device. For several, use `device_map` of `from_pretrained` or the API
    runtime."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads that compute. Default: 1 for a model under 50 million parameters, else one for each CPU that the
    process may use. With several worker processes, give each its share."""

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
                "'trust_remote_code' and 'code_revision' are refused: no code from a model's repository runs"
            )
        if value.get("use_safetensors", True) is not True:
            raise ValueError("'use_safetensors' can't be switched off: other formats can contain code")
        if "/" in str(value.get("attn_implementation", "")):
            raise ValueError("'attn_implementation' from the Hub is refused: no code from a repository runs")
        return value


class TransformersConfig(Settings):
    """The model of the backend `transformers`."""

    model_type: Literal["chat.completions"] = "chat.completions"
    """The model's task. Only `chat.completions` is supported."""
    model_settings: TransformersSettings
    """The model, its device and its defaults."""


class CustomConfig(Settings):
    """The model of a user's own backend."""

    model_type: Literal["chat.completions"] = "chat.completions"
    """The model's task. Only `chat.completions` is supported."""
    model_settings: Options = {}
    """Keyword arguments for the backend's class."""


class LocalSettings(PromptSettings):
    """Settings of `mlserver_llm_local.runtime.Local`, under `parameters.extra`."""

    default_options = DEFAULT_ALLOWED | {"n", "ignore_eos", "adapter"}

    backend: str = "transformers"
    """`transformers`, or the dotted name of your own `ChatBackend`. Its module is installed or stands beside
    `model-settings.json`."""
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
        """Refuse options that the transformers backend doesn't have. A user's own backend may have any."""
        if isinstance(self.config, TransformersConfig):
            GenerationOptions.of(merge_options(self.defaults, self.llm_parameters, config))

    @property
    def defaults(self) -> dict[str, Any]:
        """The model's default generation options."""
        if isinstance(self.config, CustomConfig):
            return {}
        settings = self.config.model_settings
        return {"max_tokens": settings.max_tokens, **settings.default_generate_kwargs}
