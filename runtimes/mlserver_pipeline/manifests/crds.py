"""Types of Seldon's resources Model, Server and ServerConfig. `KINDS` has all five resources.

Parts that Kubernetes defines (pod specs, containers, volume claims) stay plain mappings;
`kubectl apply --dry-run=server` checks them.
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
    """A setting that the manifest gives to the model."""

    name: str
    """Key below `parameters.extra`; dots lead into nested settings."""
    value: str
    """Its value, always text. It replaces the value in the settings file."""


class Explainer(Section):
    """The subject of an explainer; exactly one reference."""

    type: str | None = None
    """Type of the explainer."""
    model_ref: str | None = None
    """A Model."""
    pipeline_ref: str | None = None
    """A Pipeline."""


class Llm(Section):
    """The LLM that a model calls, by exactly one reference. Its URL becomes the setting `infer_uri`."""

    model_ref: str | None = None
    """A Model."""
    pipeline_ref: str | None = None
    """A Pipeline."""


class Logger(Section):
    """Payload logging. It is on if this section is present."""

    percent: Count | None = None
    """Part of the CRD; ignored by Core 2."""


class Scaling(Section):
    """Numbers of replicas."""

    replicas: Count | None = None
    """Wanted replicas. Default: `minReplicas`, else 1."""
    min_replicas: Count | None = None
    """Fewest replicas. A Model serves once it has this many."""
    max_replicas: Count | None = None
    """Most replicas."""


class ModelSpec(Scaling):
    """Where a model is stored and what it needs."""

    storage_uri: str
    """Folder with the model's `model-settings.json`, in rclone's notation."""
    artifact_version: Count | None = None
    """Number of the sub-folder to load."""
    secret_name: str | None = None
    """Kubernetes Secret with one key, which holds an rclone remote."""
    schema_uri: str | None = None
    """Part of the CRD; ignored by Core 2."""
    model_type: str | None = None
    """An additional requirement."""
    requirements: list[str] = []
    """Capabilities that the Server must have."""
    memory: Quantity | None = None
    """Memory that one replica needs on its Server."""
    server: str | None = None
    """Name of the only Server that may run the model."""
    preloaded: bool = False
    """Part of the CRD; ignored by Core 2."""
    dedicated: bool = False
    """Part of the CRD; ignored by Core 2."""
    parameters: list[Parameter] = []
    """Settings that replace those of the file."""
    logger: Logger | None = None
    """Payload logging."""
    explainer: Explainer | None = None
    """The subject, if the model is an explainer."""
    llm: Llm | None = None
    """The LLM, if the model calls one."""
    dataflow: Dataflow = Dataflow()
    """Cluster options."""


class Model(Resource):
    """A Model resource."""

    kind: Literal["Model"]
    """The resource's kind."""
    spec: ModelSpec
    """Where the model is stored and what it needs."""


class ImageOverrides(Section):
    """Overrides of the containers beside the inference server."""

    agent: dict[str, Any] | None = None
    """Fields of the agent's container."""
    rclone: dict[str, Any] | None = None
    """Fields of rclone's container."""


class ClaimRetention(Section):
    """Whether volume claims are kept."""

    when_deleted: Literal["Retain", "Delete"] = "Retain"
    """When the Server is deleted."""
    when_scaled: Literal["Retain", "Delete"] = "Retain"
    """When replicas are removed."""


class ServerSpec(Scaling):
    """The pods of an inference server."""

    server_config: str
    """The ServerConfig that this Server is based on."""
    capabilities: list[str] = []
    """Capabilities that models may require. They replace the ServerConfig's."""
    extra_capabilities: list[str] = []
    """Capabilities in addition to the ServerConfig's."""
    pod_spec: dict[str, Any] = {}
    """Pod spec that is merged into the ServerConfig's: containers by name, other lists are appended."""
    image_overrides: ImageOverrides | None = None
    """Fields of other containers."""
    deployment_strategy: dict[str, Any] | None = None
    """How pods are replaced."""
    stateful_set_persistent_volume_claim_retention_policy: ClaimRetention | None = None
    """Whether the volumes of downloaded models are kept."""
    disable_auto_update: bool = False
    """Whether pods keep an old ServerConfig until they restart."""


class Server(Resource):
    """A Server resource."""

    kind: Literal["Server"]
    """The resource's kind."""
    spec: ServerSpec
    """The server's pods."""


class VolumeClaim(Section):
    """Template of a volume claim."""

    name: str
    """Name of the claim."""
    spec: dict[str, Any]
    """PersistentVolumeClaimSpec of Kubernetes."""


class ServerConfigSpec(Section):
    """Settings that several Servers share."""

    pod_spec: dict[str, Any]
    """PodSpec of Kubernetes."""
    volume_claim_templates: list[VolumeClaim]
    """Volume claims that every replica gets."""


class ServerConfig(Resource):
    """A ServerConfig resource."""

    kind: Literal["ServerConfig"]
    """The resource's kind."""
    spec: ServerConfigSpec
    """Settings that its Servers share."""


KINDS: Mapping[str, type[Resource]] = {
    "Pipeline": PipelineManifest,
    "Experiment": Experiment,
    "Model": Model,
    "Server": Server,
    "ServerConfig": ServerConfig,
}
"""The types of Seldon's resources, by kind."""

_A_KIND = re.compile(rf"^kind: *({'|'.join(KINDS)})\b", re.MULTILINE)


def holds_resource(path: Path) -> bool:
    """Whether a YAML file seems to contain one of Seldon's resources. False for a file that can't be read."""
    try:
        return bool(_A_KIND.search(read_text(path)))
    except UnreadableFile:
        return False


def resource_of(document: Document) -> type[Resource] | None:
    """Return the type of a document, or None if it isn't Seldon's, such as another project's Pipeline."""
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
    """Yield the faults in numbers of replicas that Core 2 refuses."""
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
"""The checks of Models that Core 2 refuses or crashes on, by the name that the linter reports."""
