"""Loads the versions of a prompt, and selects the one for a request."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from ...errors import InvalidInput, SettingsError, reason_of
from ...files import UnreadableFile, read_json, read_text
from .prompt import Prompt
from .settings import PromptOptions, PromptSource, PromptUtils, TemplateOptions

logger = logging.getLogger("mlserver.chat")

Check = Callable[[Mapping[str, Any]], None]
"""Checks an `invocation_config`. Raises `InvalidInput` to reject it."""

_Source = str | dict[str, Any] | TemplateOptions


class PromptCatalog:
    """All versions of one prompt.

    Raises:
        SettingsError: while it is built, for anything wrong with them.
    """

    def __init__(self, sources: list[_Source], options: PromptOptions, folder: Path, check: Check):
        self._sources = sources
        self._options = options
        self._folder = folder
        self._check = check
        self._stamp = self._files_stamp()
        self._prompts = self._load()

    @staticmethod
    def of_settings(
        prompt: PromptSource | None,
        utils: PromptUtils | None,
        options: PromptOptions,
        folder: Path,
        check: Check = lambda _: None,
    ) -> "PromptCatalog | None":
        """Load the prompt that the settings name.

        Args:
            prompt: the suite's form of the setting.
            utils: the LLM Module's form of the setting.
            options: selects the version.
            folder: relative paths begin here.
            check: checks the `invocation_config` of each version.

        Returns:
            The prompt; None if the settings name none.

        Raises:
            SettingsError: a fault in the prompt or its options, or both forms at once.
        """
        template = utils.prompt_options if utils else None
        if prompt is None and template is None:
            return None
        if prompt is not None and template is not None:
            raise SettingsError("'prompt' and 'prompt_utils.prompt_options' each name a prompt; set one of them")
        sources = prompt if isinstance(prompt, list) else [prompt or template]
        return PromptCatalog(cast(list[_Source], sources), options, folder, check)

    @property
    def versions(self) -> list[Prompt]:
        """All versions, in the order of the settings."""
        return list(self._prompts.values())

    @property
    def fields(self) -> list[str]:
        """Names of the tensors that any version reads."""
        return sorted({field for prompt in self._prompts.values() for field in prompt.fields.values()})

    def select(self, conversation_id: str = "") -> Prompt:
        """Return the prompt for a conversation. The same id always gets the same arm."""
        if self._options.reload:
            self._reload()
        arms = self._options.arms
        if not arms:
            return self._prompts[self._options.version or next(reversed(self._prompts))]
        digest = hashlib.sha256(conversation_id.encode("utf-8")).digest()
        point = int.from_bytes(digest[:8], "big") / 2**64 * sum(arms.values())
        for version, weight in arms.items():
            point -= weight
            if point < 0:
                return self._prompts[version]
        return self._prompts[next(reversed(arms))]

    def _load(self) -> dict[str, Prompt]:
        prompts: dict[str, Prompt] = {}
        for source in self._sources:
            for prompt in _read(source, self._folder):
                if prompt.version in prompts:
                    raise SettingsError(f"version '{prompt.version}' of prompt '{prompt.name}' is defined twice")
                self._check_invocation(prompt)
                prompts[prompt.version] = prompt
        if not prompts:
            raise SettingsError("'prompt' names no prompt; expected at least one")
        for version in [*self._options.arms, *([self._options.version] if self._options.version else [])]:
            if version not in prompts:
                known = ", ".join(f"'{name}'" for name in prompts)
                raise SettingsError(f"'prompt_options' names version '{version}'; the prompt has {known}")
        return prompts

    def _check_invocation(self, prompt: Prompt) -> None:
        try:
            self._check(prompt.invocation_config)
        except InvalidInput as error:
            where = f"prompt '{prompt.name}' version '{prompt.version}': 'invocation_config'"
            raise SettingsError(f"{where}: {error}") from error

    def _files_stamp(self) -> tuple[tuple[int, int], ...]:
        """Return times and sizes of the files; empty while one of them is missing."""
        paths = [self._folder / path for path in map(_path, self._sources) if path is not None]
        try:
            return tuple((state.st_mtime_ns, state.st_size) for state in (path.stat() for path in paths))
        except (OSError, ValueError):
            return ()

    def _reload(self) -> None:
        """Load changed files. If they are broken, log it once and keep the previous version."""
        stamp = self._files_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._prompts = self._load()
        except SettingsError as error:
            logger.error("prompt not reloaded, the previous version stays in use: %s", error)
            return
        for prompt in self._prompts.values():
            moment = datetime.now(UTC).isoformat(timespec="seconds")
            logger.info("prompt '%s' version '%s' reloaded at %s", prompt.name, prompt.version, moment)


def _path(source: _Source) -> str | None:
    if isinstance(source, TemplateOptions):
        return source.uri
    return source if isinstance(source, str) else None


def _read(source: _Source, folder: Path) -> list[Prompt]:
    """Return the prompts of one source: a file with one prompt or a list, the prompt itself, or a bare template."""
    path = _path(source)
    where = "'parameters.extra.prompt'" if path is None else f"prompt file '{path}'"
    try:
        if isinstance(source, TemplateOptions):
            template = [{"role": "user", "content": read_text(folder / source.uri)}]
            data: Any = {"name": Path(source.uri).stem, "type": "jinja", "template": template, "tokens": source.tokens}
        elif isinstance(source, str):
            data = read_json(folder / source)
        else:
            data = source
    except UnreadableFile as error:
        raise SettingsError(f"{where} {error}") from error
    return [_prompt(item, where) for item in (cast(list[Any], data) if isinstance(data, list) else [data])]


def _prompt(data: Any, where: str) -> Prompt:
    try:
        return Prompt.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{where}: {f'{key!r}: ' if key else ''}{reason_of(first)}") from error
