"""The component that derives a ServerConfig for each image from the cluster's ServerConfig."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from core2 import SERVER_CONFIG_PORTS
from kustomize import KUBERNETES, of_kind, quantity, selects, with_components
from mlserver_pipeline.manifests.crds import KINDS

AGENT, SERVED = (
    [{"name": name, "containerPort": SERVER_CONFIG_PORTS[name]} for name in names]
    for names in (("http", "grpc", "metrics"), ("server-http", "server-grpc", "server-metrics"))
)
EXPORTED: dict[str, Any] = {
    "apiVersion": "mlops.seldon.io/v1alpha1",
    "kind": "ServerConfig",
    "metadata": {
        "name": "mlserver",
        "namespace": "seldon-mesh",
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "seldon-core-v2-setup"},
        "creationTimestamp": "2026-01-08T10:00:00Z",
        "generation": 3,
        "resourceVersion": "4711",
        "uid": "6a1c0e0e-0000-4000-8000-000000000000",
    },
    "spec": {
        "podSpec": {
            "containers": [
                {"name": "rclone", "image": "seldonio/seldon-rclone:installed", "ports": [{"containerPort": 5572}]},
                {"name": "agent", "image": "seldonio/seldon-agent:installed", "ports": AGENT},
                {"name": "mlserver", "image": "seldonio/mlserver:1.7.1", "ports": SERVED},
            ]
        },
        "volumeClaimTemplates": [
            {
                "name": "mlserver-models",
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }
        ],
    },
    "status": {},
}
"""A ServerConfig of Core 2 as `kubectl get mlc mlserver -o yaml` prints it."""


@pytest.fixture(scope="module", params=["development", "production"])
def documents(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], ...]:
    """An overlay with the component and the saved ServerConfig of the cluster."""
    tmp = tmp_path_factory.mktemp("serverconfigs")
    return with_components(tmp, request.param, "serverconfigs", exported=yaml.safe_dump(EXPORTED))


def containers(resource: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in resource["spec"]["podSpec"]["containers"]}


def test_every_image_has_a_server_and_a_serverconfig_of_its_name(documents: tuple[dict[str, Any], ...]) -> None:
    servers, configs = of_kind(documents, "Server"), of_kind(documents, "ServerConfig")
    assert set(configs) == set(servers) and len(servers) == 3
    for name, server in servers.items():
        assert server["spec"]["serverConfig"] == name
        image = containers(configs[name])["mlserver"]["image"]
        assert image == containers(server)["mlserver"]["image"]
        assert image.rpartition("/")[2].startswith(f"{name}:")


def test_serverconfigs_differ_from_the_clusters_only_in_image_and_volume(
    documents: tuple[dict[str, Any], ...],
) -> None:
    (cluster,) = EXPORTED["spec"]["volumeClaimTemplates"]
    for name, config in of_kind(documents, "ServerConfig").items():
        KINDS["ServerConfig"].model_validate(config)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": config["spec"]["podSpec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        came = containers(EXPORTED)
        assert containers(config) == came | {
            "mlserver": came["mlserver"] | {"image": containers(config)["mlserver"]["image"]}
        }
        (claim,) = config["spec"]["volumeClaimTemplates"]
        size = claim["spec"]["resources"]["requests"]["storage"]
        assert claim == cluster | {"spec": cluster["spec"] | {"resources": {"requests": {"storage": size}}}}
        bigger = quantity(size) > quantity(cluster["spec"]["resources"]["requests"]["storage"])
        assert bigger == (name == "mlserver-llm-local")


def test_metadata_of_the_clusters_serverconfig_is_removed(documents: tuple[dict[str, Any], ...]) -> None:
    for config in of_kind(documents, "ServerConfig").values():
        assert config.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert set(config["metadata"]) - {"annotations"} == {"name", "namespace", "labels"}
        assert not config["metadata"].get("annotations")
        # The operator copies them to the pods, where the metrics' Service selects them.
        assert selects({"matchLabels": config["metadata"]["labels"]}, {"app.kubernetes.io/part-of": "support-desk"})
