"""Loads weights and tokenizer from disk or the Hugging Face Hub, and chooses the number of CPU threads."""

import logging
import math
import os
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from mlserver_chat import SettingsError

from .settings import TransformersSettings

logger = logging.getLogger("mlserver.llm_local")

_TOKENIZERS: Any = AutoTokenizer
_MODELS: Any = AutoModelForCausalLM
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_SMALL = 50_000_000
"""Parameters below which one thread is fastest."""
_LOADING = threading.Lock()
"""Held while weights load, because `from_pretrained` patches torch for the whole process until it returns."""
_LOCATION_KWARGS = ("revision", "cache_dir", "local_files_only", "token")
"""The `load_kwargs` that say where a model is. They also apply to its tokenizer."""


def load(settings: TransformersSettings, folder: Path) -> tuple[Any, Any]:
    """Load a model and its tokenizer. A local folder is loaded without any request to the Hub.

    Returns:
        The model and the tokenizer, untyped because the types of transformers are incomplete.

    Raises:
        SettingsError: there is no such model, or it can't be read.
    """
    disable_progress_bar()
    device = _device(settings)
    name, is_local = _locate(settings.model, folder)
    always = {"trust_remote_code": False} | ({"local_files_only": True} if is_local else {})
    found = {key: settings.load_kwargs[key] for key in _LOCATION_KWARGS if key in settings.load_kwargs}
    weights = {"dtype": _dtype(settings, device)} | settings.load_kwargs | {"use_safetensors": True}
    try:
        tokenizer = _TOKENIZERS.from_pretrained(name, **(found | always))
        with _LOADING:
            model = _MODELS.from_pretrained(name, **(weights | always))
            if "device_map" not in settings.load_kwargs:
                model = model.to(device)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SettingsError(f"model '{settings.model}' can't be loaded: {reason}") from error
    return model.eval(), tokenizer


def _locate(model: str, folder: Path) -> tuple[str, bool]:
    """Return the argument of `from_pretrained`, and whether it is a local folder."""
    path = folder / model
    if path.is_dir():
        return str(path), True
    if model.startswith((".", "/")):
        raise SettingsError(f"'config.model_settings.model': there is no folder '{path}'")
    return model, False


def _device(settings: TransformersSettings) -> torch.device:
    has_gpu = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if has_gpu else "cpu") if settings.device == "auto" else settings.device)
    except RuntimeError as error:
        raise SettingsError(f"'config.model_settings.device': '{settings.device}' is not a device") from error
    if device.type == "cuda" and not has_gpu:
        raise SettingsError(f"'config.model_settings.device' is '{settings.device}', but there is no usable GPU")
    if settings.gpu_memory_utilization is not None:
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(settings.gpu_memory_utilization, device)
        else:
            logger.warning("'gpu_memory_utilization' is ignored: the model is on the CPU")
    return device


def _dtype(settings: TransformersSettings, device: torch.device) -> torch.dtype:
    if settings.dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    return getattr(torch, settings.dtype)


def threads_for(parameters: int) -> int:
    """Return the number of CPU threads that suits a model with so many parameters.

    A second thread doesn't speed up a small model (measured with 6 million parameters). On a busy machine it makes
    every step 10 to 50 times slower, because the step waits until both threads have been scheduled.
    """
    return 1 if parameters < _SMALL else usable_cpus()


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use.

    It respects a container's quota. torch doesn't, and would start a thread for every core of the machine.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return usable
    return usable if quota == "max" else max(1, min(usable, math.ceil(int(quota) / int(period))))
