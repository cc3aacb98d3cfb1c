"""Builds the backend that the settings name."""

import asyncio
from pathlib import Path

from mlserver_chat import ChatBackend
from mlserver_chat.llm.backends import import_backend

from .settings import CustomConfig, LocalSettings


async def build_backend(settings: LocalSettings, folder: Path, name: str) -> ChatBackend:
    """Build the transformers backend, or a user's own, without blocking the event loop.

    Args:
        settings: the runtime's settings.
        folder: the folder of `model-settings.json`. A relative `model` and a user's module resolve against it.
        name: the model's name in answers.

    Raises:
        SettingsError: the weights can't be loaded, or the user's backend can't be built.
    """
    config = settings.config
    if isinstance(config, CustomConfig):
        return await asyncio.to_thread(import_backend, settings.backend, folder, config.model_settings)
    from .transformers_backend import TransformersBackend  # imports torch

    return await asyncio.to_thread(TransformersBackend, config.model_settings, folder, name, settings.limits)
