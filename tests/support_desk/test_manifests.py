"""The documents that kustomize renders from manifests/ are valid and fit together."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

import monitoring_crds
from core2 import SERVER_CONFIG_PORTS, pod_labels, schedulable
from kustomize import KUBERNETES, MANIFESTS, of_kind, quantity, render, selects, with_components
from mlserver_llm_cli.main import main
from mlserver_pipeline.manifests.crds import KINDS
from mlserver_pipeline.manifests.lint import lint_file
from support import ROOT

OVERLAYS = ("development", "production")
SECRETS: dict[str, dict[str, str]] = {
    each["metadata"]["name"]: each["stringData"]
    for each in yaml.safe_load_all((MANIFESTS / "secrets.example.yaml").read_text(encoding="utf-8"))
}


def found(value: Any, key: str) -> list[Any]:
    """Return all values of a key, at any depth."""
    if isinstance(value, dict):
        return [inner for name, each in value.items() for inner in ([each] if name == key else found(each, key))]
    return [inner for each in value for inner in found(each, key)] if isinstance(value, list) else []


def container(server: dict[str, Any]) -> dict[str, Any]:
    (only,) = server["spec"]["podSpec"]["containers"]
    return only


def pods(documents: tuple[dict[str, Any], ...]) -> dict[str, dict[str, str]]:
    """Return the labels of all pods that the documents create."""
    of_servers = {name: pod_labels(server) for name, server in of_kind(documents, "Server").items()}
    sets = of_kind(documents, "StatefulSet")
    return of_servers | {name: each["spec"]["template"]["metadata"]["labels"] for name, each in sets.items()}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_document_is_valid(tmp_path: Path, overlay: str) -> None:
    check_documents(render(overlay), tmp_path)


def test_gpu_and_experiment_components_work_in_production(tmp_path: Path) -> None:
    documents = with_components(tmp_path, "production", "gpu", "experiment")
    check_documents(documents, tmp_path)
    local = of_kind(documents, "Server")["mlserver-llm-local"]
    assert container(local)["resources"]["limits"] == {"memory": "2Gi", "nvidia.com/gpu": 1}
    assert local["spec"]["podSpec"]["tolerations"] and local["spec"]["podSpec"]["nodeSelector"]
    assert "answer-support-v2" in of_kind(documents, "Model")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_differs_from_the_others_only_by_its_key(tmp_path: Path, overlay: str) -> None:
    documents = with_components(tmp_path, overlay, "api")
    check_documents(documents, tmp_path)
    servers = of_kind(documents, "Server")
    api, like = servers["mlserver-llm-api"], servers["mlserver-llm-classifier"]
    assert container(api)["image"].replace("-api:", "-classifier:") == container(like)["image"]
    workers, key = container(api)["env"]
    reference = key["valueFrom"]["secretKeyRef"]
    assert [workers] == container(like)["env"] and reference["key"] in SECRETS[reference["name"]]
    own = {"image", "env", "resources"}
    assert {key: value for key, value in container(api).items() if key not in own} == {
        key: value for key, value in container(like).items() if key not in own
    }
    assert api["spec"]["podSpec"].keys() == like["spec"]["podSpec"].keys()
    assert api["spec"]["replicas"] == like["spec"]["replicas"]
    assert schedulable({"spec": {"requirements": ["mlserver-llm-api"]}}, servers) == ["mlserver-llm-api"]
    for kind in ("NetworkPolicy", "PodDisruptionBudget") if overlay == "production" else ("PodDisruptionBudget",):
        field = {"NetworkPolicy": "podSelector", "PodDisruptionBudget": "selector"}[kind]
        (found,) = (each for each in of_kind(documents, kind).values() if selects(each["spec"][field], pod_labels(api)))
        assert found["metadata"]["namespace"] == "seldon-mesh"


def check_documents(documents: tuple[dict[str, Any], ...], tmp_path: Path) -> None:
    """Validate each document against the CRDs and Kubernetes."""
    for each in documents:
        group = each["apiVersion"].rpartition("/")[0]
        if group == "mlops.seldon.io":
            KINDS[each["kind"]].model_validate(each)
            (tmp_path / "document.yaml").write_text(yaml.safe_dump(each), encoding="utf-8")
            assert lint_file(tmp_path / "document.yaml") == []
        elif group == "monitoring.coreos.com":
            monitoring_crds.KINDS[each["kind"]].model_validate(each)
        else:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pods_of_servers_are_valid_kubernetes(overlay: str) -> None:
    for name, server in of_kind(render(overlay), "Server").items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": server["spec"]["podSpec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        assert container(server)["name"] == "mlserver", "the agent serves the container of this name"
        volumes = {volume["name"] for volume in server["spec"]["podSpec"]["volumes"]}
        assert {mount["name"] for mount in container(server)["volumeMounts"]} <= volumes


def test_validation_finds_a_wrong_document() -> None:
    (policy, *_) = of_kind(render("production"), "NetworkPolicy").values()
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**policy, "spec": {**policy["spec"], "podSelectors": {}}}, KUBERNETES, strict=True
        )


def test_the_cluster_runs_the_same_pipeline_file_as_a_laptop() -> None:
    written = yaml.safe_load((ROOT / "pipelines/support-chat.yaml").read_text(encoding="utf-8"))
    for overlay in OVERLAYS:
        (rendered,) = of_kind(render(overlay), "Pipeline").values()
        assert rendered["spec"] == written["spec"] and rendered["metadata"]["name"] == written["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_step_llm_and_candidate_has_a_model(overlay: str) -> None:
    documents = render(overlay)
    models = of_kind(documents, "Model")
    (pipeline,) = of_kind(documents, "Pipeline").values()
    wanted = {step["name"] for step in pipeline["spec"]["steps"]}
    wanted |= {model["spec"]["llm"]["modelRef"] for model in models.values() if "llm" in model["spec"]}
    for experiment in of_kind(documents, "Experiment").values():
        wanted |= {candidate["name"] for candidate in experiment["spec"]["candidates"]}
    assert wanted == set(models)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_model_has_a_folder_and_one_server_with_enough_memory(overlay: str) -> None:
    documents = render(overlay)
    servers, taken = of_kind(documents, "Server"), dict.fromkeys(of_kind(documents, "Server"), 0.0)
    for model in of_kind(documents, "Model").values():
        assert (ROOT / "models" / model["spec"]["storageUri"].rsplit("/", 1)[1] / "model-settings.json").exists()
        (server,) = schedulable(model, servers)
        taken[server] += quantity(model["spec"]["memory"])
        if "minReplicas" not in model["spec"]:
            assert model["spec"]["replicas"] <= servers[server]["spec"]["replicas"]
    for name, server in servers.items():
        resources = container(server)["resources"]
        assert 0 < taken[name] <= quantity(resources["requests"]["memory"])
        # Without a limit, the one of the ServerConfig would apply.
        assert quantity(resources["requests"]["memory"]) <= quantity(resources["limits"]["memory"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_only_refer_to_the_users_secrets(overlay: str) -> None:
    documents = render(overlay)
    assert not of_kind(documents, "Secret")
    references = [(each["name"], each["key"]) for each in found(list(documents), "secretKeyRef")]
    assert all(key in SECRETS[name] for name, key in references)
    storages = {model["spec"]["secretName"] for model in of_kind(documents, "Model").values()}
    assert storages == {"support-desk-storage"}
    used = storages | {name for name, _ in references}
    assert used == (set(SECRETS) - {"support-desk-llm"} if overlay == "production" else storages)


def test_the_storage_secret_is_one_remote_with_the_prefix_of_the_uris() -> None:
    (remote,) = (yaml.safe_load(text) for text in SECRETS["support-desk-storage"].values())
    assert set(remote) == {"type", "name", "parameters"}
    assert all(isinstance(value, str) for value in remote["parameters"].values())
    for model in of_kind(render("production"), "Model").values():
        assert model["spec"]["storageUri"].startswith(f"{remote['name']}://")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_is_pinned_and_runs_without_privileges(overlay: str) -> None:
    documents = render(overlay)
    for image in found(list(documents), "image"):
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)*:\d[\w.-]*", image), image
    containers = [each for every in found(list(documents), "containers") for each in every]
    assert containers
    for each in containers:
        assert each["securityContext"] | {"seccompProfile": {}} == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {},
        }
        assert {"cpu", "memory"} <= set(each["resources"]["requests"])


def test_the_images_are_built_by_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    for image in (container(server)["image"] for server in of_kind(render("development"), "Server").values()):
        name, _, tag = image.partition(":")
        assert version and tag == version[1]
        assert name.removeprefix("mlserver-llm-") in makefile


def test_production_keeps_conversations_in_postgres() -> None:
    documents = render("production")
    memories = [model for name, model in of_kind(documents, "Model").items() if name.startswith("remember-")]
    assert len(memories) == 2
    for model in memories:
        assert model["spec"]["parameters"] == [{"name": "config.url", "value": "env:MEMORY_URL"}]
        (server,) = schedulable(model, of_kind(documents, "Server"))
        env = {each["name"]: each for each in container(of_kind(documents, "Server")[server])["env"]}
        assert env["MEMORY_URL"]["valueFrom"]["secretKeyRef"] == {"name": "support-desk-postgres", "key": "url"}
    assert "sqlite" not in yaml.safe_dump_all(documents)
    (postgres,) = of_kind(documents, "StatefulSet").values()
    service = of_kind(documents, "Service")["support-desk-postgres"]
    template = postgres["spec"]["template"]
    assert service["spec"]["clusterIP"] == "None" and postgres["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert postgres["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (only,) = template["spec"]["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(only)
    assert template["spec"]["securityContext"]["runAsNonRoot"]
    (claim,) = postgres["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] in {mount["name"] for mount in only["volumeMounts"]}
    address = f"@{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/"
    assert address in SECRETS["support-desk-postgres"]["url"]


def test_production_survives_the_loss_of_a_pod() -> None:
    documents = render("production")
    servers = of_kind(documents, "Server")
    assert all(server["spec"]["replicas"] >= 2 for server in servers.values())
    assert all(model["spec"]["replicas"] >= 2 for model in of_kind(documents, "Model").values())
    for name, server in servers.items():
        budgets = of_kind(documents, "PodDisruptionBudget").values()
        (budget,) = (each for each in budgets if selects(each["spec"]["selector"], pod_labels(server)))
        assert (budget["metadata"]["name"], budget["spec"]["maxUnavailable"]) == (name, 1)
        (spread,) = server["spec"]["podSpec"]["topologySpreadConstraints"]
        assert selects(spread["labelSelector"], pod_labels(server))
        assert set(spread["matchLabelKeys"]) <= set(pod_labels(server))


def test_production_scales_the_server_of_the_llm_alone() -> None:
    documents = render("production")
    (scaler,) = of_kind(documents, "HorizontalPodAutoscaler").values()
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == ("mlops.seldon.io/v1alpha1", "Server")
    server = of_kind(documents, "Server")[target["name"]]
    # Otherwise Core 2 would scale the Server, too.
    assert not {"minReplicas", "maxReplicas"} & set(server["spec"])
    (model,) = (
        each
        for each in of_kind(documents, "Model").values()
        if target["name"] in schedulable(each, {target["name"]: server})
    )
    assert model["spec"]["replicas"] == scaler["spec"]["maxReplicas"]
    assert model["spec"]["minReplicas"] == scaler["spec"]["minReplicas"] == server["spec"]["replicas"]
    (metric,) = scaler["spec"]["metrics"]
    assert metric["containerResource"]["name"] in container(server)["resources"]["requests"]


def test_production_restricts_traffic_to_the_database_and_to_the_servers() -> None:
    documents = render("production")
    policies, labels = of_kind(documents, "NetworkPolicy"), pods(documents)
    guarded = {
        name: policy
        for policy in policies.values()
        for name in labels
        if selects(policy["spec"]["podSelector"], labels[name])
    }
    assert set(guarded) == set(labels)
    assert all(policy["spec"]["policyTypes"] == ["Ingress", "Egress"] for policy in policies.values())
    (rule,) = guarded["support-desk-postgres"]["spec"]["ingress"]
    (peer,) = rule["from"]
    assert [name for name in labels if selects(peer["podSelector"], labels[name])] == ["mlserver-llm-memory"]
    (port,) = found(of_kind(documents, "StatefulSet")["support-desk-postgres"], "containerPort")
    assert rule["ports"] == [{"port": port}]
    inside, monitoring = guarded["mlserver-llm-memory"]["spec"]["ingress"]
    ports = SERVER_CONFIG_PORTS
    assert [each["port"] for each in inside["ports"]] == [ports["http"], ports["grpc"]]
    assert [each["port"] for each in monitoring["ports"]] == [ports["server-metrics"], ports["metrics"]]


def test_production_has_monitoring() -> None:
    documents = render("production")
    (monitor,) = of_kind(documents, "ServiceMonitor").values()
    services = of_kind(documents, "Service").values()
    (service,) = (each for each in services if selects(monitor["spec"]["selector"], each["metadata"]["labels"]))
    labels = pods(documents)
    watched = [name for name in labels if selects({"matchLabels": service["spec"]["selector"]}, labels[name])]
    assert watched == list(of_kind(documents, "Server"))
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] == SERVER_CONFIG_PORTS["server-metrics"]
    assert [each["port"] for each in monitor["spec"]["endpoints"]] == [port["name"]]
    # Otherwise a pod that never becomes ready would cause no alert. Each pod is scraped separately.
    assert service["spec"]["publishNotReadyAddresses"] and service["spec"]["clusterIP"] == "None"
    (dashboard,) = of_kind(documents, "ConfigMap").values()
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_development_needs_one_node_and_no_database() -> None:
    documents = render("development")
    assert not of_kind(documents, "StatefulSet")
    assert all(
        each["spec"]["replicas"] == 1 for kind in ("Server", "Model") for each in of_kind(documents, kind).values()
    )
    memory = container(of_kind(documents, "Server")["mlserver-llm-memory"])
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    mounts = [mount["mountPath"] for mount in memory["volumeMounts"]]
    assert re.search(r"MLSERVER_LLM_DATA=(\S+)", dockerfile)[1] in mounts  # type: ignore[index]


def test_all_files_lint_without_findings() -> None:
    result = CliRunner().invoke(main, ["pipeline", "lint", "--strict", str(MANIFESTS), str(ROOT / "pipelines")])
    assert result.exit_code == 0, result.output
