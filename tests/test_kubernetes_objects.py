"""Tests that the objects of deploy/kubernetes fit together: references, selectors, ports, policies, alert rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_pages import DOCS, ROOT
from manifests import (
    OVERLAYS,
    Manifest,
    check_restricted,
    container,
    find,
    matches,
    of_kind,
    pod_templates,
    render,
    walk,
)

from tasks.settings.serving import ApiSettings, ServingSettings

PAGE = (DOCS / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
# Ports outside of the namespace: DNS, PostgreSQL, HTTPS, the API server behind its Service, a Pushgateway.
OUTSIDE = {53, 5432, 443, 6443, 9091}
per_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
monitored = pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "local"])


def labels_of_pods(overlay: str) -> dict[str, dict[str, str]]:
    return {name: template["metadata"]["labels"] for name, template in pod_templates(overlay).items()}


def selected(overlay: str, selector: Manifest) -> set[str]:
    """Returns the names of the pod templates that a label selector matches."""
    return {name for name, labels in labels_of_pods(overlay).items() if matches(selector, labels)}


def ports_of(template: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(template).get("ports", [])}


# References


@per_overlay
def test_no_overlay_has_the_value_of_a_secret(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == []
    for template in pod_templates(overlay).values():
        for variable in container(template).get("env", []):
            assert not re.search("TOKEN|PASSWORD|URL", variable["name"]) or variable["name"].endswith("_FILE")
    for manifest in of_kind(overlay, "ConfigMap"):
        for text in manifest["data"].values():
            assert not re.search(r"^\s*\w*(password|token|secret)\w* *=", text, re.MULTILINE)
            assert not re.search(r"://[^\s/]*:[^\s/]*@", text)


@per_overlay
def test_every_configmap_claim_and_account_that_a_pod_names_exists(overlay: str) -> None:
    existing = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in render(overlay)}
    accounts = {name for kind, name in existing if kind == "ServiceAccount"}
    used = set()
    for template in pod_templates(overlay).values():
        spec = template["spec"]
        assert spec["serviceAccountName"] in accounts
        used.add(spec["serviceAccountName"])
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert volumes == {mount["name"] for mount in container(template)["volumeMounts"]}
        for name in [source["name"] for source in walk(spec["volumes"], "configMap")]:
            assert ("ConfigMap", name) in existing
        for name in walk(spec["volumes"], "claimName"):
            assert ("PersistentVolumeClaim", name) in existing
    assert used == accounts
    for kind, field in (("ConfigMap", "configMap"), ("PersistentVolumeClaim", "claimName")):
        found = [value for template in pod_templates(overlay).values() for value in walk(template, field)]
        names = {value["name"] if isinstance(value, dict) else value for value in found}
        assert names == {name for other, name in existing if other == kind}


@per_overlay
def test_every_secret_that_a_pod_names_is_made_by_a_documented_command(overlay: str) -> None:
    for template in pod_templates(overlay).values():
        paths = [variable.get("value", "") for variable in container(template).get("env", [])]
        mounts = {mount["name"]: mount["mountPath"] for mount in container(template)["volumeMounts"]}
        for volume in template["spec"]["volumes"]:
            if "secret" in volume:
                (path,) = [path for path in paths if path.startswith(mounts[volume["name"]] + "/")]
                key = path.rpartition("/")[2]
                command = rf"create secret generic {volume['secret']['secretName']} --from-file={key}="
                assert re.search(command, PAGE), command


@monitored
def test_prometheus_sends_the_token_of_the_front_end(overlay: str) -> None:
    (endpoint,) = find(overlay, "ServiceMonitor", "spamscore-api")["spec"]["endpoints"]
    template = pod_templates(overlay)["spamscore-api"]
    credentials = endpoint["authorization"]["credentials"]
    assert credentials["name"] in walk(template["spec"]["volumes"], "secretName")
    (path,) = [
        variable["value"] for variable in container(template)["env"] if variable["name"] == "SPAMSCORE_API_TOKEN_FILE"
    ]
    assert Path(path).name == credentials["key"]


@per_overlay
def test_the_writer_and_the_readers_of_the_artifacts_mount_one_claim_at_one_path(overlay: str) -> None:
    writable = {}
    for name, template in pod_templates(overlay).items():
        for mount in container(template)["volumeMounts"]:
            if mount["name"] == "artifacts":
                assert mount["mountPath"] == "/srv/spamscore/artifacts"
                writable[name] = not mount.get("readOnly", False)
    writers = {"spamscore-nightly", "spamscore-backfill", "spamscore-console"}
    writers |= {"spamscore-api"} if overlay == "local" else set()  # a reader of SQLite writes to the folder of the file
    assert {name for name, is_writable in writable.items() if is_writable} == writers
    assert set(labels_of_pods(overlay)) - set(writable) == {"luigid"}
    modes = find(overlay, "PersistentVolumeClaim", "spamscore-artifacts")["spec"]["accessModes"]
    assert modes == (["ReadWriteOnce"] if overlay == "local" else ["ReadWriteMany"])


# Selectors and ports


@per_overlay
def test_every_selector_matches_the_pods_that_it_is_for(overlay: str) -> None:
    for manifest in of_kind(overlay, "Deployment", "PodDisruptionBudget"):
        name = manifest["metadata"]["name"]
        assert selected(overlay, manifest["spec"]["selector"]) == {name}
    for manifest in of_kind(overlay, "Service"):
        expected = manifest["metadata"]["name"].removesuffix("-grpc")
        assert selected(overlay, {"matchLabels": manifest["spec"]["selector"]}) == {expected}
    for name, template in pod_templates(overlay).items():
        for selector in walk(template["spec"].get("topologySpreadConstraints", []), "labelSelector"):
            assert selected(overlay, selector) == {name}
    for manifest in of_kind(overlay, "NetworkPolicy"):
        for selector in walk(manifest["spec"], "podSelector"):
            assert not selector or selected(overlay, selector) or selector == {"matchLabels": {"k8s-app": "kube-dns"}}


@per_overlay
def test_every_port_is_one_that_the_program_listens_on(overlay: str) -> None:
    ports = {name: ports_of(template) for name, template in pod_templates(overlay).items()}
    serving = int(ServingSettings().server.rpartition(":")[2]), int(ServingSettings().rest_server.rpartition(":")[2])
    assert ports["spamscore-api"] == {"http": ApiSettings().port}
    assert ports["spamscore-serving"] == {"grpc": serving[0], "rest": serving[1]}
    arguments = container(pod_templates(overlay)["luigid"])["args"]
    assert ports["luigid"] == {"http": int(arguments[arguments.index("--port") + 1])}
    if overlay == "spark":
        options = find(overlay, "ConfigMap", "spamscore-spark")["data"]["spark.cfg"].split()
        expected = {f"spark.driver.port={ports['spamscore-nightly']['driver']}"}
        assert expected | {f"spark.blockManager.port={ports['spamscore-nightly']['blocks']}"} <= set(options)
    for manifest in of_kind(overlay, "Service"):
        target = ports[manifest["metadata"]["name"].removesuffix("-grpc")]
        for port in manifest["spec"]["ports"]:
            assert target[port["targetPort"]] == port["port"]


@per_overlay
def test_every_address_in_the_settings_is_a_service_with_that_port(overlay: str) -> None:
    services = {
        f"{manifest['metadata']['name']}:{port['port']}"
        for manifest in of_kind(overlay, "Service")
        for port in manifest["spec"]["ports"]
    }
    text = find(overlay, "ConfigMap", "spamscore-settings")["data"]["luigi.cfg"]
    addresses = re.findall(r"^(?:\w*server|default_scheduler_url) = (?:http://)?(\S+)$", text, re.MULTILINE)
    assert len(addresses) == 3
    assert set(addresses) <= services


@per_overlay
def test_every_probe_uses_a_port_of_its_container(overlay: str) -> None:
    for name, template in pod_templates(overlay).items():
        only = container(template)
        probes = {key: value for key, value in only.items() if key.endswith("Probe")}
        is_server = name in ("luigid", "spamscore-api", "spamscore-serving")
        assert set(probes) == ({"startupProbe", "readinessProbe", "livenessProbe"} if is_server else set())
        for port in walk(probes, "port"):
            assert port in ports_of(template)


def test_the_headless_service_has_the_addresses_of_all_replicas() -> None:
    headless = find("production", "Service", "spamscore-serving-grpc")["spec"]
    balanced = find("production", "Service", "spamscore-serving")["spec"]
    assert (headless["clusterIP"], headless["selector"]) == ("None", balanced["selector"])
    assert find("production", "Deployment", "spamscore-serving")["spec"]["replicas"] == 3


def test_the_load_balancer_and_its_network_policy_let_the_same_clients_in() -> None:
    service = find("load-balancer", "Service", "spamscore-serving")["spec"]
    assert (service["type"], service["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    policy = find("load-balancer", "NetworkPolicy", "load-balancer")["spec"]
    assert list(walk(policy, "cidr")) == service["loadBalancerSourceRanges"]
    assert "type" not in find("production", "Service", "spamscore-serving")["spec"]


# Network policies


def test_what_no_policy_allows_is_denied() -> None:
    policy = find("local", "NetworkPolicy", "default-deny")["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@per_overlay
def test_a_policy_lets_clients_only_to_ports_of_its_pods(overlay: str) -> None:
    reachable: dict[str, set[int]] = {}
    for manifest in of_kind(overlay, "NetworkPolicy"):
        pods = selected(overlay, manifest["spec"]["podSelector"])
        listening = {port for name in pods for port in ports_of(pod_templates(overlay)[name]).values()}
        if "executor" in pods:
            listening |= {7079}  # Spark adds the port to the pod
        for port in walk(manifest["spec"].get("ingress", []), "port"):
            assert port in listening
            for name in pods:
                reachable.setdefault(name, set()).add(port)
    for name in ("luigid", "spamscore-api", "spamscore-serving"):
        assert set(ports_of(pod_templates(overlay)[name]).values()) <= reachable[name]


def connections(overlay: str, direction: str, peers: str) -> set[tuple[str, str, int]]:
    """Returns who connects to whom at which port, of the rules in a direction that name pods of this namespace."""
    found = set()
    for manifest in of_kind(overlay, "NetworkPolicy"):
        pods = selected(overlay, manifest["spec"]["podSelector"])
        for rule in manifest["spec"].get(direction, []):
            for peer in rule.get(peers, []):
                if "namespaceSelector" in peer or "ipBlock" in peer:
                    continue
                for other in selected(overlay, peer["podSelector"]):
                    for port in rule["ports"]:
                        found |= {
                            (pod, other, port["port"]) if direction == "egress" else (other, pod, port["port"])
                            for pod in pods
                        }
    return found


@per_overlay
def test_both_ends_of_a_connection_between_pods_are_allowed(overlay: str) -> None:
    allowed = connections(overlay, "ingress", "from")
    assert allowed == connections(overlay, "egress", "to")
    assert {("spamscore-nightly", "luigid", 8082), ("spamscore-api", "spamscore-serving", 8500)} <= allowed


@per_overlay
def test_pods_connect_to_known_ports_outside_of_the_namespace_only(overlay: str) -> None:
    for manifest in of_kind(overlay, "NetworkPolicy"):
        for rule in manifest["spec"].get("egress", []):
            inside = any("podSelector" in peer and "namespaceSelector" not in peer for peer in rule.get("to", []))
            assert inside or {port["port"] for port in rule["ports"]} <= OUTSIDE


# Pod Security


@per_overlay
def test_every_pod_is_restricted_and_the_namespace_enforces_it(overlay: str) -> None:
    labels = find(overlay, "Namespace", "spamscore")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for template in pod_templates(overlay).values():
        check_restricted(template)


@per_overlay
def test_a_pod_writes_only_to_limited_volumes_and_has_requests_and_limits(overlay: str) -> None:
    for name, template in pod_templates(overlay).items():
        for directory in walk(template["spec"]["volumes"], "emptyDir"):
            assert "sizeLimit" in directory
        if name != "executor":  # Spark sets them from [spark] cores and memory
            resources = container(template)["resources"]
            assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory", "ephemeral-storage"}


@per_overlay
def test_only_the_driver_of_spark_has_a_token_for_the_api_server(overlay: str) -> None:
    with_token = {
        name for name, template in pod_templates(overlay).items() if template["spec"]["automountServiceAccountToken"]
    }
    drivers = {"spamscore-nightly", "spamscore-backfill"} if overlay == "spark" else set()
    assert with_token == drivers
    assert all(account["automountServiceAccountToken"] is False for account in of_kind(overlay, "ServiceAccount"))
    for name in drivers:
        assert pod_templates(overlay)[name]["spec"]["serviceAccountName"] == "spamscore-driver"


# Prometheus


@monitored
def test_the_prometheus_rule_has_the_rules_of_rules_yml(overlay: str) -> None:
    (rule,) = of_kind(overlay, "PrometheusRule")
    assert set(rule) == {"apiVersion", "kind", "metadata", "spec"}
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["spec"] == RULES


@monitored
def test_every_job_of_the_rules_is_a_service_that_prometheus_scrapes(overlay: str) -> None:
    services = of_kind(overlay, "Service")
    jobs = set()
    for monitor in of_kind(overlay, "ServiceMonitor"):
        assert set(monitor) == {"apiVersion", "kind", "metadata", "spec"}
        assert set(monitor["spec"]) == {"selector", "endpoints"}
        (endpoint,) = monitor["spec"]["endpoints"]
        assert {"port", "path"} <= set(endpoint) <= {"port", "path", "authorization"}
        chosen = [
            service for service in services if matches(monitor["spec"]["selector"], service["metadata"]["labels"])
        ]
        (service,) = chosen
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        jobs.add(service["metadata"]["name"])
    named = set(re.findall(r'job="([\w-]+)"', str(RULES)))
    assert named
    assert named <= jobs


def test_a_selector_with_another_operator_is_not_taken_for_in() -> None:
    expression: dict[str, Any] = {"key": "a", "operator": "NotIn", "values": ["b"]}
    with pytest.raises(AssertionError):
        matches({"matchExpressions": [expression]}, {})
