"""Seldon's other resources, typed like `manifest.PipelineManifest`: Model, Server and ServerConfig.

`KINDS` has all five. Kubernetes' own parts (pod specs, containers, volume claims) stay plain mappings: their schema is
Kubernetes' business, and `kubectl apply --dry-run=server` checks it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mlserver_chat.files import UnreadableFile, read_text
from mlserver_chat.requests.identity import NAME_PATTERN

from .documents import Document
from .experiments import Experiment
from .manifest import API_VERSION, Count, Dataflow, PipelineManifest, Resource, Section
from .validation import ManifestFault

Quantity = (
    Annotated[int, Field(strict=True)]
    | Annotated[str, Field(pattern=r"^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?(\d+(\.\d*)?|\.\d+))?$")]
)
"""An amount in Kubernetes' notation, e.g. `100Mi`."""


class Parameter(Section):
    """A setting given by the manifest."""

    name: str
    """Key below `parameters.extra`; dots lead into nested settings."""
    value: str
    """Always text; the agent writes it over the file's own value."""


class Explainer(Section):
    """What a model explains; exactly one reference."""

    type: str | None = None
    """Kind of explanation."""
    model_ref: str | None = None
    """A Model."""
    pipeline_ref: str | None = None
    """A Pipeline."""


class Llm(Section):
    """The LLM that a model calls: its URL becomes the setting `infer_uri`; exactly one reference."""

    model_ref: str | None = None
    """A Model."""
    pipeline_ref: str | None = None
    """A Pipeline."""


class Logger(Section):
    """Payload logging; on when it is there."""

    percent: Count | None = None
    """Part of the CRD; ignored by Core 2."""


class Scaling(Section):
    """How many replicas."""

    replicas: Count | None = None
    """How many there shall be; default: `minReplicas`, else 1."""
    min_replicas: Count | None = None
    """Fewest; of a Model also how many are enough to serve."""
    max_replicas: Count | None = None
    """Most."""


class ModelSpec(Scaling):
    """Where a model comes from and what it needs."""

    storage_uri: str
    """Folder with the model's `model-settings.json`, as rclone names it."""
    artifact_version: Count | None = None
    """Number of the sub-folder to take."""
    secret_name: str | None = None
    """Secret with one key that holds an rclone remote."""
    schema_uri: str | None = None
    """Part of the CRD; ignored by Core 2."""
    model_type: str | None = None
    """One more requirement."""
    requirements: list[str] = []
    """Capabilities that its Server must have."""
    memory: Quantity | None = None
    """What one replica needs of its Server's memory."""
    server: str | None = None
    """The only Server to run on."""
    preloaded: bool = False
    """Part of the CRD; ignored by Core 2."""
    dedicated: bool = False
    """Part of the CRD; ignored by Core 2."""
    parameters: list[Parameter] = []
    """Settings over those of the file."""
    logger: Logger | None = None
    """Payload logging."""
    explainer: Explainer | None = None
    """Set for explainers."""
    llm: Llm | None = None
    """Set for models that call an LLM."""
    dataflow: Dataflow = Dataflow()
    """Cluster options."""


class Model(Resource):
    """A Model resource."""

    kind: Literal["Model"]
    """The resource's kind."""
    spec: ModelSpec
    """Where it comes from and what it needs."""


class ImageOverrides(Section):
    """Containers beside the inference server, overridden."""

    agent: dict[str, Any] | None = None
    """Fields of the agent's container."""
    rclone: dict[str, Any] | None = None
    """Fields of rclone's container."""


class ClaimRetention(Section):
    """What becomes of volume claims."""

    when_deleted: Literal["Retain", "Delete"] = "Retain"
    """With the Server."""
    when_scaled: Literal["Retain", "Delete"] = "Retain"
    """With a replica."""


class ServerSpec(Scaling):
    """An inference server's pods."""

    server_config: str
    """The ServerConfig that it changes."""
    capabilities: list[str] = []
    """What its models may require, in place of the ServerConfig's."""
    extra_capabilities: list[str] = []
    """The same, beside the ServerConfig's."""
    pod_spec: dict[str, Any] = {}
    """Merged into the ServerConfig's: containers by name, other lists are appended."""
    image_overrides: ImageOverrides | None = None
    """Other containers' fields."""
    deployment_strategy: dict[str, Any] | None = None
    """How pods are replaced."""
    stateful_set_persistent_volume_claim_retention_policy: ClaimRetention | None = None
    """What becomes of the volumes that hold the downloaded models."""
    disable_auto_update: bool = False
    """Whether pods keep an old ServerConfig until they are restarted."""


class Server(Resource):
    """A Server resource."""

    kind: Literal["Server"]
    """The resource's kind."""
    spec: ServerSpec
    """Its pods."""


class VolumeClaim(Section):
    """A volume claim's template."""

    name: str
    """Its name."""
    spec: dict[str, Any]
    """Kubernetes' PersistentVolumeClaimSpec."""


class ServerConfigSpec(Section):
    """What the Servers of a kind have in common."""

    pod_spec: dict[str, Any]
    """Kubernetes' PodSpec."""
    volume_claim_templates: list[VolumeClaim]
    """One volume a replica for each."""


class ServerConfig(Resource):
    """A ServerConfig resource."""

    kind: Literal["ServerConfig"]
    """The resource's kind."""
    spec: ServerConfigSpec
    """What its Servers have in common."""


KINDS: Mapping[str, type[Resource]] = {
    "Pipeline": PipelineManifest,
    "Experiment": Experiment,
    "Model": Model,
    "Server": Server,
    "ServerConfig": ServerConfig,
}
"""The resources by kind."""

_A_KIND = re.compile(rf"^kind: *({'|'.join(KINDS)})\b", re.MULTILINE)


def holds_resource(path: Path) -> bool:
    """Whether a YAML file looks as if it held one of Seldon's resources; False for what can't be read."""
    try:
        return bool(_A_KIND.search(read_text(path)))
    except UnreadableFile:
        return False


def resource_of(document: Document) -> type[Resource] | None:
    """Which resource a document is; None for those of others, e.g. another project's Pipeline."""
    group, _, version = str(document.content.get("apiVersion", API_VERSION)).rpartition("/")
    foreign = bool(version) and not group.endswith("seldon.io")
    return None if foreign else KINDS.get(str(document.content.get("kind", "Pipeline")))


def _name(model: Model) -> Iterator[ManifestFault]:
    if not NAME_PATTERN.fullmatch(model.name):
        yield (
            ("metadata", "name"),
            f"Model {model.name} does not have a valid name - it must be alphanumeric and not contains dots (.)",
        )


def _references(model: Model) -> Iterator[ManifestFault]:
    if model.spec.explainer and model.spec.llm:
        yield ("spec", "llm"), "Can't have both explainer and llm in model spec."
    elif model.spec.llm and bool(model.spec.llm.model_ref) == bool(model.spec.llm.pipeline_ref):
        yield ("spec", "llm"), "spec.llm names neither or both of modelRef and pipelineRef; exactly one is needed"


def scaling_faults(resource: Model | Server) -> Iterator[ManifestFault]:
    """What Core 2 refuses in numbers of replicas."""
    spec = resource.spec
    least, most = spec.min_replicas or 0, spec.max_replicas or 0
    replicas = (least or 1) if spec.replicas is None else spec.replicas
    if replicas < least:
        yield ("spec", "replicas"), f"number of replicas {replicas} must be >= min replicas {least}"
    if most and replicas > most:
        yield ("spec", "replicas"), f"number of replicas {replicas} must be <= max replicas {most}"


MODEL_RULES: Mapping[str, Callable[[Model], Iterator[ManifestFault]]] = {
    "model-name": _name,
    "model-llm": _references,
    "replicas": scaling_faults,
}
"""What Core 2 refuses in a Model, or crashes on."""
