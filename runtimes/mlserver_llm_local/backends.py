"""From settings to the backend that answers."""

import asyncio
from pathlib import Path

from mlserver_chat import ChatBackend
from mlserver_chat.llm.backends import import_backend

from .settings import CustomConfig, LocalSettings


async def build_backend(settings: LocalSettings, folder: Path, name: str) -> ChatBackend:
    """The backend that `settings` name: the transformers one, or a user's own.

    Args:
        settings: the runtime's settings.
        folder: where `model-settings.json` is; a relative `model` and a user's module are looked for there.
        name: what answers call the model.

    Raises:
        SettingsError: the weights can't be loaded, or the user's backend can't be built.
    """
    config = settings.config
    if isinstance(config, CustomConfig):
        return await asyncio.to_thread(import_backend, settings.backend, folder, config.model_settings)
    from .transformers_backend import TransformersBackend  # torch is imported only where it is used

    return await asyncio.to_thread(TransformersBackend, config.model_settings, folder, name, settings.limits)
