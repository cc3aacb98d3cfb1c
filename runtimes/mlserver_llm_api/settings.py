"""Settings of the API runtime: the keys of Seldon's LLM Module, and further ones."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from mlserver_chat import PromptSettings, Secret, Settings
from mlserver_chat.llm.options import merge_options

from .call_options import check_options

OPENAI_URL = "https://api.openai.com/v1"
GEMINI_URL = "https://generativelanguage.googleapis.com/v1beta/openai"


def _check_url(url: str) -> str:
    """Refuse a URL without repeating it, because it may hold a password."""
    if not url.startswith(("http://", "https://")) or "@" in url:
        raise ValueError("expected an http or https URL without credentials; the key belongs in 'api_key'")
    return url


Url = Annotated[str, AfterValidator(_check_url)]


class ApiSettings(Settings):
    """Settings that all APIs need."""

    model_id: str | None = None
    """The model's name at the API, e.g. `gpt-4o-mini`. On Azure, the name of the deployment."""
    model_type: Literal["chat.completions"] = "chat.completions"
    """The API's method. Only `chat.completions` is supported."""
    api_key: Secret | None = None
    """`env:OPENAI_API_KEY` or `file:/run/secrets/key`. Not needed if the server at `base_url` has no authentication."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds for a whole answer including retries; in a stream, for each piece."""
    stream_timeout: float = Field(default=600.0, gt=0)
    """Seconds for a whole stream."""
    connect_timeout: float = Field(default=5.0, gt=0)
    """Seconds to connect."""
    max_retries: int = Field(default=2, ge=0)
    """Number of retries after status 408, 409, 429, any status from 500 on, or a broken connection. A `Retry-After` of
    up to two minutes is honoured."""
    llm_parameters: dict[str, Any] = {}
    """Generation options of this model, under OpenAI's names. All other options take precedence."""

    base_url: Url = ""
    """URL of the API."""

    @property
    def model(self) -> str:
        """The model's name in calls of the API."""
        return self.model_id or ""


class OpenAISettings(ApiSettings):
    """Settings for OpenAI, Azure, and any server with OpenAI's API."""

    env_prefix: ClassVar[str] = "MLSERVER_MODEL_OPENAI_"

    base_url: Url = OPENAI_URL
    """URL of the API, including `/v1`. Requests can't change it, and redirects are not followed."""
    organization: str | None = None
    """OpenAI's organization id."""
    api_type: Literal["open_ai", "azure", "azure_ad"] | None = None
    """`azure` needs `api_key`, and `azure_ad` needs `azure_ad_token`. Default: `open_ai`."""
    azure_endpoint: Url | None = None
    """URL of the Azure resource, `https://<resource>.openai.azure.com`."""
    azure_deployment: str | None = None
    """Name of the Azure deployment. Default: `model_id`."""
    api_version: str | None = None
    """Version of the Azure API, e.g. `2024-10-21`."""
    azure_ad_token: Secret | None = None
    """Reference to a Microsoft Entra ID token, written like `api_key`. The token is not renewed."""

    @property
    def is_azure(self) -> bool:
        """Whether these settings are for Azure."""
        return self.api_type in ("azure", "azure_ad")

    @property
    def model(self) -> str:
        """The model's name in calls of the API."""
        return self.model_id or self.azure_deployment or ""

    @model_validator(mode="after")
    def _check(self) -> "OpenAISettings":
        if not self.model:
            raise ValueError("'model_id' is missing; expected the model's name at the API")
        if not self.is_azure:
            if self.api_key is None and self.base_url == OPENAI_URL:
                raise ValueError("'api_key' is missing; set it to 'env:NAME', or set MLSERVER_MODEL_OPENAI_API_KEY")
            return self
        if self.azure_endpoint is None or self.api_version is None:
            raise ValueError(f"api_type '{self.api_type}' needs 'azure_endpoint' and 'api_version'")
        secret = "api_key" if self.api_type == "azure" else "azure_ad_token"
        if getattr(self, secret) is None:
            raise ValueError(f"api_type '{self.api_type}' needs '{secret}'")
        return self


class GeminiSettings(ApiSettings):
    """Settings for Google Gemini, which is called through its OpenAI-compatible API."""

    env_prefix: ClassVar[str] = "MLSERVER_MODEL_GEMINI_"

    base_url: Url = GEMINI_URL
    """URL of the API. Requests can't change it, and redirects are not followed."""

    @model_validator(mode="after")
    def _check(self) -> "GeminiSettings":
        if not self.model_id:
            raise ValueError("'model_id' is missing; expected the model's name at the API")
        if self.api_key is None and self.base_url == GEMINI_URL:
            raise ValueError("'api_key' is missing; set it to 'env:NAME', or set MLSERVER_MODEL_GEMINI_API_KEY")
        for name in ("generation_config", "safety_settings", "system_instruction"):
            if name in self.llm_parameters:
                raise ValueError(
                    f"'llm_parameters.{name}' belongs to Gemini's own API; this runtime calls its OpenAI-compatible "
                    "one: use OpenAI's names ('max_tokens', 'temperature', …), and a prompt for the system instruction"
                )
        return self


class LLMSettings(PromptSettings):
    """Settings of `mlserver_llm_api.LLMRuntime`, under `parameters.extra`."""

    provider_id: Literal["openai", "gemini"]
    """The kind of API: `openai`, also for compatible servers, or `gemini`."""
    config: OpenAISettings | GeminiSettings = Field(default_factory=dict[str, Any], validate_default=True)
    """The API and the model."""

    @field_validator("config", mode="before")
    @classmethod
    def _of_provider(cls, value: Any, info: ValidationInfo) -> Any:
        provider = GeminiSettings if info.data.get("provider_id") == "gemini" else OpenAISettings
        return provider.model_validate(value)

    def check_invocation(self, config: Mapping[str, Any]) -> None:
        """Refuse options that a call can't set. Only the API knows which others it has."""
        check_options(merge_options(self.config.llm_parameters, self.llm_parameters, config))
