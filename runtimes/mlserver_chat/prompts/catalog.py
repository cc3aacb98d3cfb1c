"""Which prompt a request gets: one version, a pinned one, or an arm of a split; reloaded or not."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, ValidationError, model_validator

from ..errors import InvalidInput, SettingsError
from ..messages import Message, last_user_text
from ..settings import Settings
from ..tensors import Tensors, value_text
from .prompt import Prompt, PromptMessage
from .render import HISTORY, LAST_USER_MESSAGE, placeholders, render

logger = logging.getLogger(__name__)

PromptSource = str | dict[str, Any] | list[str | dict[str, Any]]
"""A path relative to `model-settings.json`, the prompt itself, or a list of these (versions of one prompt)."""


class PromptOptions(Settings):
    """How a prompt is chosen among its versions."""

    version: str | None = None
    """Pin this version, which is also the rollback; default: the last of the list."""
    arms: dict[str, float] = {}
    """Split by version and weight, e.g. `{"1": 90, "2": 10}`; a conversation stays on its arm."""
    reload: bool = False
    """Re-read the prompt's files while running. Default: immutable until redeployed."""

    @model_validator(mode="after")
    def _check(self) -> "PromptOptions":
        if self.arms and (min(self.arms.values()) < 0 or sum(self.arms.values()) <= 0):
            raise ValueError("the weights of 'arms' must be 0 or more, and one of them over 0")
        if self.arms and self.version is not None:
            raise ValueError("'version' pins one prompt and 'arms' splits between several; set one of them")
        return self


class TemplateOptions(Settings):
    """The LLM Module's own form of a prompt."""

    uri: str
    """Template file, relative to `model-settings.json`."""
    tokens: dict[str, str] = {}
    """Constants for the template."""
    type: Literal["jinja"] = "jinja"
    """The only template language of this form."""


class PromptUtils(Settings):
    """The LLM Module's `prompt_utils` settings."""

    prompt_options: TemplateOptions | None = None
    """Template to render; its text becomes one user message."""
    tensor_name_outputs: list[str] | None = None
    """Accepted and unused, as in the LLM Module."""
    model_type: str | None = Field(
        default=None, pattern=r"chat\.completions|completions|embeddings|images\.generations"
    )
    """Accepted; the conversation is always read as chat messages."""

    def prompt(self, folder: Path) -> dict[str, Any] | None:
        """The same as a prompt of ours."""
        if self.prompt_options is None:
            return None
        path = folder / self.prompt_options.uri
        try:
            template = path.read_text(encoding="utf-8")
        except OSError:
            raise SettingsError(f"prompt template '{path}' can't be read") from None
        return {
            "name": Path(self.prompt_options.uri).stem,
            "type": "jinja",
            "template": [{"role": "user", "content": template}],
            "tokens": self.prompt_options.tokens,
        }


class PromptCatalog:
    """The versions of one prompt. Raises `SettingsError` while loading for anything wrong with them."""

    def __init__(self, source: PromptSource, options: PromptOptions, folder: Path):
        self._sources = source if isinstance(source, list) else [source]
        self._options = options
        self._folder = folder
        self._stamp = self._files_stamp()
        self._prompts = self._load()

    def _load(self) -> dict[str, Prompt]:
        prompts: dict[str, Prompt] = {}
        for source in self._sources:
            for prompt in load_prompts(source, self._folder):
                if prompt.version in prompts:
                    raise SettingsError(f"prompt '{prompt.name}' has version '{prompt.version}' twice")
                prompts[prompt.version] = prompt
        wanted = [*self._options.arms, *([self._options.version] if self._options.version else [])]
        for version in wanted:
            if version not in prompts:
                raise SettingsError(f"'prompt_options' names version '{version}'; there is {sorted(prompts)}")
        return prompts

    def select(self, memory_id: str = "") -> Prompt:
        """The prompt for a conversation; the same `memory_id` always gets the same arm."""
        if self._options.reload:
            self._reload()
        if not self._options.arms:
            return self._prompts[self._options.version or next(reversed(self._prompts))]
        total = sum(self._options.arms.values())
        point = int.from_bytes(hashlib.sha256(memory_id.encode("utf-8")).digest()[:8], "big") / 2**64 * total
        for version, weight in self._options.arms.items():
            point -= weight
            if point < 0:
                return self._prompts[version]
        return self._prompts[next(reversed(self._options.arms))]

    def _files_stamp(self) -> tuple[int, ...]:
        paths = [self._folder / source for source in self._sources if isinstance(source, str)]
        try:
            return tuple(path.stat().st_mtime_ns for path in paths)
        except OSError:
            return ()

    def _reload(self) -> None:
        """Take changed files over; a broken change is logged and the last good one stays."""
        stamp = self._files_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._prompts = self._load()
        except SettingsError as error:
            logger.error("prompt not reloaded, the last good one stays: %s", error)
            return
        for prompt in self._prompts.values():
            moment = datetime.now(UTC).isoformat(timespec="seconds")
            logger.info("prompt '%s' version '%s' reloaded at %s", prompt.name, prompt.version, moment)


def load_prompts(source: str | dict[str, Any], folder: Path) -> list[Prompt]:
    """The prompts of one source: a file with one prompt or a list of them, or a prompt as an object."""
    where = f"prompt file '{source}'" if isinstance(source, str) else "'parameters.extra.prompt'"
    data: Any = source
    if isinstance(source, str):
        try:
            data = json.loads((folder / source).read_text(encoding="utf-8"))
        except OSError:
            raise SettingsError(f"{where} can't be read") from None
        except ValueError as error:
            raise SettingsError(f"{where} is not JSON: {error}") from None
    try:
        items = cast(list[Any], data) if isinstance(data, list) else [data]
        return [Prompt.model_validate(item) for item in items]
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{where}: {key + ': ' if key else ''}{first['msg']}") from None


def render_prompt(prompt: Prompt, tensors: Tensors, conversation: Sequence[Message]) -> list[Message]:
    """The messages of `prompt`, filled from `tensors` and the conversation.

    `{history}` expands to the conversation, without the last user message where the template itself renders that.
    Without such a message in the template the conversation is not sent.

    Raises:
        InvalidInput: the tensor of a placeholder is missing.
    """
    values = _values(prompt, tensors, conversation)
    history = list(conversation)
    if _renders_last_user_message(prompt) and history and history[-1].role == "user":
        history = history[:-1]
    messages: list[Message] = []
    for message in prompt.template:
        if message.role == "placeholder":
            messages.extend(history)
        else:
            messages.append(Message.of_text(message.role, render(message.content, prompt.type, values)))
    return messages


def _values(prompt: Prompt, tensors: Tensors, conversation: Sequence[Message]) -> Mapping[str, Any]:
    values: dict[str, Any] = dict(prompt.tokens)
    for placeholder, field in prompt.fields.items():
        if field not in tensors:
            raise InvalidInput(f"tensor '{field}' is missing; prompt '{prompt.name}' needs it for '{{{placeholder}}}'")
        values[placeholder] = value_text(tensors[field])
    values[LAST_USER_MESSAGE] = last_user_text(conversation)
    values[HISTORY] = "\n".join(f"{message.role}: {message.text}" for message in conversation)
    if prompt.type == "jinja":
        values["messages"] = [{"role": m.role, "content": m.text, "type": "text"} for m in conversation]
    return values


def _renders_last_user_message(prompt: Prompt) -> bool:
    def uses(message: PromptMessage) -> bool:
        return message.role != "placeholder" and LAST_USER_MESSAGE in placeholders(message.content, prompt.type)

    return any(uses(message) for message in prompt.template)
