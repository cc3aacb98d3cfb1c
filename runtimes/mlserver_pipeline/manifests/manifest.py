"""Types of Seldon's Pipeline resource, `mlops.seldon.io/v1alpha1`, with every field of the CRD and no other.

`crds.py` has the other resources.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from mlserver_chat import SettingsError

from .documents import Document, Location, dotted, read_documents

API_VERSION = "mlops.seldon.io/v1alpha1"

MAX_STEPS = 1_000
"""Most steps of a pipeline."""

Count = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
"""A whole number from 0 on that fits the CRD's int32."""

JoinType = Literal["inner", "outer", "any"]
"""How several sources are joined to one message; see `engine/joins.py`."""


class Section(BaseModel):
    """Base class of the sections of a manifest. Keys are camelCase, unknown keys are errors, null counts as absent."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in cast(dict[str, Any], data).items() if value is not None}


class Batch(Section):
    """How many requests are gathered before a step runs."""

    size: Count = 0
    """Rows to gather, counted in the first dimension of the first tensor; 0 for no batching."""
    window_ms: Count = 0
    """Part of the CRD; without effect."""
    rolling: bool = False
    """Part of the CRD; without effect."""


class Step(Section):
    """A model and its sources."""

    name: str
    """Name of the model."""
    inputs: list[str] = []
    """References to the step's sources. Default: the pipeline's inputs."""
    join_window_ms: Count = 0
    """How far apart in time its sources may be, in milliseconds; 0 for 60000."""
    tensor_map: dict[str, str] = {}
    """New names of tensors that it reads, by `<step or pipeline>.<inputs|outputs>.<tensor>`."""
    triggers: list[str] = []
    """References to messages that must arrive too before the step runs."""
    inputs_join_type: JoinType = "inner"
    """How its sources are joined."""
    triggers_join_type: JoinType = "inner"
    """How its triggers are joined."""
    batch: Batch = Batch()
    """Batching, off by default."""


class Input(Section):
    """Other pipelines whose messages become inputs of this one."""

    external_inputs: list[str] = []
    """`<pipeline>.<inputs|outputs>[.<tensor>]` or `<pipeline>.step.<step>.<inputs|outputs>[.<tensor>]`."""
    external_triggers: list[str] = []
    """References of the same form that must arrive before the pipeline runs."""
    join_window_ms: Count = 0
    """How far apart in time they may be, in milliseconds; 0 for 60000."""
    join_type: JoinType = "inner"
    """How the external inputs are joined."""
    triggers_join_type: JoinType = "inner"
    """How the external triggers are joined."""
    tensor_map: dict[str, str] = {}
    """New names of external tensors."""


class Output(Section):
    """The answer of the pipeline."""

    steps: list[str] = []
    """References to the outputs that are joined to the answer. Default: the pipeline's own inputs."""
    join_window_ms: Count = 0
    """How far apart in time they may be, in milliseconds; 0 for 60000."""
    steps_join: JoinType = "inner"
    """How they are joined."""
    tensor_map: dict[str, str] = {}
    """New names of output tensors."""


class Dataflow(Section):
    """Options of the cluster's dataflow engine, without effect here."""

    clean_topics_on_delete: bool = False
    """Whether Kafka topics are deleted with the pipeline."""


class Spec(Section):
    """The graph."""

    steps: list[Step] = Field(max_length=MAX_STEPS)
    """The steps, in any order."""
    input: Input | None = None
    """Other pipelines to read from."""
    output: Output | None = None
    """The answer. Without it, callers get none."""
    dataflow: Dataflow = Dataflow()
    """Cluster options."""
    allow_cycles: bool = False
    """Whether a step may read its own output through other steps."""
    max_step_revisits: Count = 0
    """How often a request may return to a step of a pipeline with a cycle."""


class Metadata(Section):
    """Metadata of Kubernetes. Only the name is used."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    """Name of the resource."""


class Resource(Section):
    """Base class of all resources."""

    api_version: Literal["mlops.seldon.io/v1alpha1"]
    """The resource's group and version."""
    metadata: Metadata
    """Name and other metadata."""
    status: Any = None
    """Status that the cluster writes; ignored."""

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.metadata.name


class PipelineManifest(Resource):
    """A Pipeline resource."""

    kind: Literal["Pipeline"]
    """The resource's kind."""
    spec: Spec
    """The graph."""


@dataclass(frozen=True)
class Loaded:
    """A manifest and the document it was read from."""

    manifest: PipelineManifest
    document: Document


def read_manifests(path: Path) -> list[Loaded]:
    """Read the Pipelines of a manifest file, without checking their rules. Documents of other kinds are skipped.

    Raises:
        SettingsError: the file isn't YAML, contains neither Pipeline nor Experiment, or has an unknown field or a wrong
            value. The sentence has file, line and key.
    """
    documents = read_documents(path)
    kinds = [document.content.get("kind", "Pipeline") for document in documents]
    if "Pipeline" not in kinds and "Experiment" not in kinds:
        raise SettingsError(f"{path.name}: contains no manifest of kind 'Pipeline'")
    pipelines = [document for document, kind in zip(documents, kinds, strict=True) if kind == "Pipeline"]
    return [Loaded(parse_resource(document, PipelineManifest), document) for document in pipelines]


ResourceT = TypeVar("ResourceT", bound=Section)


def parse_resource(document: Document, kind: type[ResourceT]) -> ResourceT:
    """Parse a document as a resource of type `kind`.

    Raises:
        SettingsError: an unknown field or a wrong value. The sentence has file, line and key.
    """
    for location, sentence in shape_faults(document, kind):
        raise SettingsError(f"{document.position(location)}: {sentence}")
    return kind.model_validate(document.content)


def shape_faults(document: Document, kind: type[Section] = PipelineManifest) -> list[tuple[Location, str]]:
    """List the faults that the CRD's schema refuses: unknown or missing fields and wrong values, with locations."""
    try:
        kind.model_validate(document.content)
    except ValidationError as error:
        # Misspelt fields come first, since they explain missing ones.
        faults = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        return [_fault(kind, each["loc"], each["type"], each["msg"]) for each in faults]
    return []


def _fault(kind: type[Section], location: Sequence[str | int], error: str, message: str) -> tuple[Location, str]:
    path, key = tuple(location), dotted(tuple(location))
    if error == "extra_forbidden":
        near = difflib.get_close_matches(str(path[-1]), _fields_at(kind, path[:-1]), n=1)
        return path, f"unknown field '{key}'" + (f"; did you mean '{near[0]}'?" if near else "")
    if error == "missing":
        return path, f"field '{key}' is missing"
    return path, f"field '{key}': {message[:1].lower()}{message[1:]}"


def _fields_at(kind: type[Section], location: Location) -> list[str]:
    """The names of the fields at a location of a resource."""
    names = {str(field.alias): field.annotation for field in kind.model_fields.values()}
    keys = [key for key in location if isinstance(key, str)]
    if not keys:
        return sorted(names)
    inner = next(_sections_of(names.get(keys[0])), None)
    return _fields_at(inner, tuple(keys[1:])) if inner else []


def _sections_of(annotation: Any) -> Iterator[type[Section]]:
    """The sections within a type such as `list[Step]` or `Output | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections_of(argument)
