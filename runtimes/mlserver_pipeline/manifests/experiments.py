"""Seldon's Experiment resource: requests of one model or pipeline split over several, and mirrored to another."""

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from mlserver_chat import SettingsError

from .documents import read_documents
from .manifest import Count, Resource, Section, parse_resource

ROUTE = "x-seldon-route"
"""The response header that says which candidate answered; sent back, it leads to the same one again."""

Random = Callable[[], float]
"""A number from 0 up to 1."""


class Candidate(Section):
    """One of those that share the requests."""

    name: str
    """A model or a pipeline."""
    weight: Count
    """Its share, relative to the sum of all weights."""


class Mirror(Section):
    """One more that gets requests; what it answers is dropped."""

    name: str
    """A model or a pipeline."""
    percent: Count
    """How many requests of a hundred."""


class ExperimentSpec(Section):
    """The split."""

    default: str | None = None
    """The candidate whose own address gets the split."""
    resource_type: str = "model"
    """`pipeline`, or anything else for models."""
    candidates: list[Candidate]
    """Those that share the requests."""
    mirror: Mirror | None = None
    """One that listens."""


class Experiment(Resource):
    """An Experiment resource."""

    kind: Literal["Experiment"]
    """The resource's kind."""
    spec: ExperimentSpec
    """The split."""

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
        """The candidate for a request: the one that its `x-seldon-route` header names, else one by weight."""
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
        """Whether this request also goes to the mirror."""
        return self.spec.mirror is not None and draw() * 100 < self.spec.mirror.percent

    def token(self, name: str) -> str:
        """How `x-seldon-route` names a candidate; a model with its version, which is always 1 here."""
        return f":{name}.pipeline:" if self.is_of_pipelines else f":{name}_1:"


def read_experiments(paths: Iterable[Path]) -> list[Experiment]:
    """The Experiments of manifest files.

    Raises:
        SettingsError: what Core 2 refuses, in its own words, with file and line.
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
    """What Core 2 refuses in an experiment, beside the `others` that were there before it."""
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
        nobody = "has no candidates or mirror" if spec.mirror is None else "has nobody to answer: name a candidate"
        yield f"experiment {name} {nobody}"
    members = experiment.members
    for twice in (member for member in members if members.count(member) > 1):
        yield f"each candidate and mirror must be unique but found resource {twice} duplicated in experiment {name}"


def with_token(route: str, token: str) -> str:
    """The value of `x-seldon-route` once it has come by `token` too."""
    return route if token in route else f"{route} {token}".strip()
