"""Seldon's Experiment resource, which splits requests over several models or pipelines and mirrors them to another."""

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from mlserver_chat import SettingsError

from .documents import read_documents
from .manifest import Count, Resource, Section, parse_resource

ROUTE = "x-seldon-route"
"""Response header that names the candidate that answered. Sent with a request, it selects that candidate again."""

Random = Callable[[], float]
"""Returns a random number from 0 to 1, without 1."""


class Candidate(Section):
    """A model or pipeline that gets a share of the requests."""

    name: str
    """Name of the model or pipeline."""
    weight: Count
    """Its share, relative to the sum of all weights."""


class Mirror(Section):
    """A model or pipeline that gets a copy of requests. Its answers are dropped."""

    name: str
    """Name of the model or pipeline."""
    percent: Count
    """Percentage of the requests that are copied."""


class ExperimentSpec(Section):
    """Candidates and mirror."""

    default: str | None = None
    """The candidate whose own address is split."""
    resource_type: str = "model"
    """`pipeline` for pipelines; any other value stands for models."""
    candidates: list[Candidate]
    """The models or pipelines that share the requests."""
    mirror: Mirror | None = None
    """Gets a copy of some requests."""


class Experiment(Resource):
    """An Experiment resource."""

    kind: Literal["Experiment"]
    """The resource's kind."""
    spec: ExperimentSpec
    """Candidates and mirror."""

    @property
    def is_of_pipelines(self) -> bool:
        """Whether the candidates are pipelines."""
        return self.spec.resource_type == "pipeline"

    @property
    def candidate_names(self) -> set[str]:
        """The names of the candidates."""
        return {candidate.name for candidate in self.spec.candidates}

    @property
    def members(self) -> list[str]:
        """The names of the candidates and the mirror."""
        mirrors = [self.spec.mirror] if self.spec.mirror else []
        return [each.name for each in (*self.spec.candidates, *mirrors)]

    def choose(self, route: str, draw: Random = random.random) -> str:
        """Choose the candidate for a request: the one named by `route` (its header `x-seldon-route`), or by weight."""
        for candidate in self.spec.candidates:
            if self.token(candidate.name) in route:
                return candidate.name
        point = draw() * sum(candidate.weight for candidate in self.spec.candidates)
        for candidate in self.spec.candidates:
            point -= candidate.weight
            if point < 0:
                return candidate.name
        return self.spec.candidates[-1].name

    def is_mirrored(self, draw: Random = random.random) -> bool:
        """Decide whether a request also goes to the mirror."""
        return self.spec.mirror is not None and draw() * 100 < self.spec.mirror.percent

    def token(self, name: str) -> str:
        """Return a candidate's token in `x-seldon-route`. A model's has its version, which is always 1 here."""
        return f":{name}.pipeline:" if self.is_of_pipelines else f":{name}_1:"


def read_experiments(paths: Iterable[Path]) -> list[Experiment]:
    """Read the Experiments of manifest files.

    Raises:
        SettingsError: Core 2 would refuse one. The sentence is Core 2's own, with file and line.
    """
    found: list[Experiment] = []
    for document in (document for path in paths for document in read_documents(path)):
        if document.content.get("kind") == "Experiment":
            experiment = parse_resource(document, Experiment)
            for fault in experiment_faults(experiment, found):
                raise SettingsError(f"{document.position(('spec',))}: {fault}")
            found.append(experiment)
    return found


def experiment_faults(experiment: Experiment, others: Iterable[Experiment] = ()) -> Iterator[str]:
    """Yield the faults that Core 2 refuses in an experiment, given the `others` that exist already."""
    name, spec = experiment.metadata.name, experiment.spec
    for other in others:
        if spec.default and (other.spec.default, other.is_of_pipelines) == (spec.default, experiment.is_of_pipelines):
            yield (
                f"Resource {spec.default} already in experiment {other.metadata.name} as a baseline. "
                "A model or pipeline can only appear in one experiment as a baseline"
            )
    if spec.default and spec.default not in [candidate.name for candidate in spec.candidates]:
        yield f"default model/pipeline {spec.default} not found in experiment {name} candidates"
    if not spec.candidates:
        lack = "has no candidates or mirror" if spec.mirror is None else "has only a mirror; name a candidate"
        yield f"experiment {name} {lack}"
    members = experiment.members
    for twice in (member for member in members if members.count(member) > 1):
        yield f"each candidate and mirror must be unique but found resource {twice} duplicated in experiment {name}"


def with_token(route: str, token: str) -> str:
    """Add a token to the value of `x-seldon-route`, unless it is there."""
    return route if token in route else f"{route} {token}".strip()
