"""The fields of the Prometheus operator's resources (`monitoring.coreos.com/v1`) that the manifests use."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Duration = Annotated[str, Field(pattern=r"^\d+(ms|s|m|h|d)$")]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class Endpoint(Closed):
    port: str
    path: str = "/metrics"
    interval: Duration


class ServiceMonitorSpec(Closed):
    selector: dict[str, Any]
    pod_target_labels: list[str] = []
    endpoints: list[Endpoint]


class ServiceMonitor(Closed):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["ServiceMonitor"]
    metadata: dict[str, Any]
    spec: ServiceMonitorSpec


class Annotations(Closed):
    summary: str
    description: str


class Alert(Closed):
    alert: str
    expr: str
    for_: Annotated[Duration, Field(alias="for")]
    labels: dict[Literal["severity"], Literal["critical", "warning"]]
    annotations: Annotations


class RuleGroup(Closed):
    name: str
    rules: list[Alert]


class RuleSpec(Closed):
    groups: list[RuleGroup]


class PrometheusRule(Closed):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PrometheusRule"]
    metadata: dict[str, Any]
    spec: RuleSpec


KINDS: dict[str, type[Closed]] = {"ServiceMonitor": ServiceMonitor, "PrometheusRule": PrometheusRule}
