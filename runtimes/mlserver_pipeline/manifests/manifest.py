"""Seldon's Pipeline resource, `mlops.seldon.io/v1alpha1`, typed: every field of the CRD, and no other.

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
"""A non-negative number that fits the CRD's int32."""

JoinType = Literal["inner", "outer", "any"]
"""When several sources make one message; `engine/joins.py` says what each does."""


class Section(BaseModel):
    """Base of the parts of a manifest: camelCase keys, closed to unknown ones; a null counts as absent."""

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
    """Requests gathered before a step runs."""

    size: Count = 0
    """Rows (of the first tensor's first dimension) to gather; 0: no batching."""
    window_ms: Count = 0
    """Part of the CRD; the engine never reads it."""
    rolling: bool = False
    """Part of the CRD; the operator drops it."""


class Step(Section):
    """One model and what it reads."""

    name: str
    """Name of the model."""
    inputs: list[str] = []
    """What it reads; default: the pipeline's inputs."""
    join_window_ms: Count = 0
    """How far apart its sources may be produced, in milliseconds; 0: 60000."""
    tensor_map: dict[str, str] = {}
    """New names of tensors it reads, by `<step or pipeline>.<inputs|outputs>.<tensor>`."""
    triggers: list[str] = []
    """What must be there, besides its inputs, for it to run."""
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
    """The same, as triggers."""
    join_window_ms: Count = 0
    """In milliseconds; 0: 60000."""
    join_type: JoinType = "inner"
    """How the external inputs are joined."""
    triggers_join_type: JoinType = "inner"
    """How the external triggers are joined."""
    tensor_map: dict[str, str] = {}
    """New names of external tensors."""


class Output(Section):
    """What the pipeline answers."""

    steps: list[str] = []
    """The steps whose outputs are joined; none: the pipeline's own inputs come back."""
    join_window_ms: Count = 0
    """In milliseconds; 0: 60000."""
    steps_join: JoinType = "inner"
    """How they are joined."""
    tensor_map: dict[str, str] = {}
    """New names of output tensors."""


class Dataflow(Section):
    """Options of the cluster's dataflow engine; of no effect here."""

    clean_topics_on_delete: bool = False
    """Whether Kafka topics go with the pipeline."""


class Spec(Section):
    """The graph."""

    steps: list[Step] = Field(max_length=MAX_STEPS)
    """The steps, in any order."""
    input: Input | None = None
    """Other pipelines to read from."""
    output: Output | None = None
    """What to answer; without it nobody gets an answer."""
    dataflow: Dataflow = Dataflow()
    """Cluster options."""
    allow_cycles: bool = False
    """Whether a step may, through others, read its own output."""
    max_step_revisits: Count = 0
    """How often a request may come back to a step of a cyclic pipeline."""


class Metadata(Section):
    """Kubernetes' metadata; only the name has a meaning here."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    """Name of the resource."""


class Resource(Section):
    """What all resources have, beside their `kind` and `spec`."""

    api_version: Literal["mlops.seldon.io/v1alpha1"]
    """The resource's group and version."""
    metadata: Metadata
    """Its name."""
    status: Any = None
    """Written by the cluster; ignored."""

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.metadata.name


class PipelineManifest(Resource):
    """A Pipeline resource."""

    kind: Literal["Pipeline"]
    """The resource's kind."""
    spec: Spec
    """Its graph."""


@dataclass(frozen=True)
class Loaded:
    """A manifest and the document it was read from."""

    manifest: PipelineManifest
    document: Document


def read_manifests(path: Path) -> list[Loaded]:
    """The Pipelines of a manifest file, typed but not yet validated. Documents of other kinds are passed over.

    Raises:
        SettingsError: not YAML, neither Pipeline nor Experiment in it, an unknown field, a wrong value; with file, line
            and key.
    """
    documents = read_documents(path)
    kinds = [document.content.get("kind", "Pipeline") for document in documents]
    if "Pipeline" not in kinds and "Experiment" not in kinds:
        raise SettingsError(f"{path.name}: holds no manifest of kind 'Pipeline'")
    pipelines = [document for document, kind in zip(documents, kinds, strict=True) if kind == "Pipeline"]
    return [Loaded(parse_resource(document, PipelineManifest), document) for document in pipelines]


ResourceT = TypeVar("ResourceT", bound=Section)


def parse_resource(document: Document, kind: type[ResourceT]) -> ResourceT:
    """One document as a resource of this kind.

    Raises:
        SettingsError: an unknown field, a wrong value; with file, line and key.
    """
    for location, sentence in shape_faults(document, kind):
        raise SettingsError(f"{document.position(location)}: {sentence}")
    return kind.model_validate(document.content)


def shape_faults(document: Document, kind: type[Section] = PipelineManifest) -> list[tuple[Location, str]]:
    """What the CRD's schema would refuse: unknown or missing fields and wrong values, each with its place."""
    try:
        kind.model_validate(document.content)
    except ValidationError as error:
        # A misspelt field first: it is why another is missing.
        faults = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        return [_fault(kind, each["loc"], each["type"], each["msg"]) for each in faults]
    return []


def _fault(kind: type[Section], location: Sequence[str | int], error: str, message: str) -> tuple[Location, str]:
    place, key = tuple(location), dotted(tuple(location))
    if error == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), _fields_at(kind, place[:-1]), n=1)
        return place, f"unknown field '{key}'" + (f"; did you mean '{near[0]}'?" if near else "")
    if error == "missing":
        return place, f"field '{key}' is missing"
    return place, f"field '{key}': {message[:1].lower()}{message[1:]}"


def _fields_at(kind: type[Section], location: Location) -> list[str]:
    """The fields of the part of a resource at this place."""
    names = {str(field.alias): field.annotation for field in kind.model_fields.values()}
    keys = [key for key in location if isinstance(key, str)]
    if not keys:
        return sorted(names)
    inner = next(_parts_of(names.get(keys[0])), None)
    return _fields_at(inner, tuple(keys[1:])) if inner else []


def _parts_of(annotation: Any) -> Iterator[type[Section]]:
    """The parts in a type such as `list[Step]` or `Output | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts_of(argument)
