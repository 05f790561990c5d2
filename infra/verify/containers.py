#!/usr/bin/env python3
"""Ports, paths, times and sizes of the Dockerfile, of Compose and of Kubernetes must agree with
environments.json and with the binary's own configuration.

    containers.py NODE_BINARY
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
problems = []


def expect(place, found, expected):
    if found != expected:
        problems.append(f"{place}: {found!r}, but it should be {expected!r}")


def port(addr):
    return int(addr.rsplit(":", 1)[1])


def config_of(binary, path, env):
    """The configuration in force, as the binary understands the file and the variables."""
    command = [binary, "config"] + (["--config", path] if path else [])
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": "/nonexistent", **env})
    if done.returncode or done.stderr:
        problems.append(f"{path} {sorted(env)}: {done.stderr.strip()}")
        return {}
    return tomllib.loads(done.stdout)


def check_dockerfile(shared, binary):
    text = (ROOT / "Dockerfile").read_text()
    env = dict(re.findall(r"^ENV (PULSE_[A-Z]+__\w+)=(\S+)$", text, re.M))
    config = config_of(binary, None, env)
    expect("Dockerfile http.addr", port(config["http"]["addr"]), shared["ports"]["http"])
    expect("Dockerfile EXPOSE", int(re.search(r"^EXPOSE (\d+)$", text, re.M)[1]), shared["ports"]["http"])
    volume = re.search(r"^VOLUME (\S+)$", text, re.M)[1]
    expect("Dockerfile data directory", Path(config["node"]["data_dir"]).parent, Path(volume))
    health = json.loads(re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.M)[1])
    # The command must be one that the binary has.
    subprocess.run([binary, *health[1:], "--help"], capture_output=True, check=True)
    return volume, re.search(r"^USER (\d+):", text, re.M)[1]


def check_compose(shared, binary, volume):
    compose = yaml.safe_load((INFRA / "compose/compose.yml").read_text())
    services, ports = compose["services"], shared["ports"]
    node = services["node"]
    env = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in node["environment"].items()}
    config = config_of(binary, None, env)
    expect("compose ops_addr", port(config["http"]["ops_addr"]), ports["ops"])
    expect("compose simulates", config["node"]["simulate"], True)
    expect("compose volume of the node", node["volumes"], [f"node:{volume}"])
    if int(node["stop_grace_period"].removesuffix("s")) <= config["node"]["stop_timeout_secs"]:
        problems.append("compose: the node is killed before it may have stopped")
    for name, service in services.items():
        if service["read_only"] is not True or service["cap_drop"] != ["ALL"]:
            problems.append(f"compose: {name} may write or has capabilities")
        for published in service.get("ports", []):
            if not published.startswith("127.0.0.1:"):
                problems.append(f"compose: {name} is public on {published}")
    targets = json.loads((INFRA / "compose/targets/pulse-node.json").read_text())
    expect("compose scrape target", targets[0]["targets"], [f"node:{ports['ops']}"])
    if f"node:{ports['http']} " not in services["nginx"]["command"][2] + " ":
        problems.append("compose: nginx asks another port of the node")
    prometheus = yaml.safe_load((INFRA / "monitoring/prometheus/prometheus.yml").read_text())
    alertmanagers = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    expect("prometheus.yml alertmanagers", alertmanagers, ["127.0.0.1:9093"])
    expect("compose network of Alertmanager", services["alertmanager"]["network_mode"], "service:prometheus")
    grafana = services["grafana"]
    datasource = yaml.safe_load((INFRA / "monitoring/grafana/provisioning/datasources/prometheus.yml").read_text())
    variable = datasource["datasources"][0]["url"].removeprefix("$")
    expect("compose Grafana's source", grafana["environment"][variable], "http://prometheus:9090")
    boards = yaml.safe_load((INFRA / "monitoring/grafana/provisioning/dashboards/pulse.yml").read_text())
    path = boards["providers"][0]["options"]["path"]
    if not any(mount.split(":")[1] == path for mount in grafana["volumes"]):
        problems.append("compose: dashboards are not where Grafana looks")


def check_kubernetes(shared, binary, volume, user):
    for overlay in sorted((INFRA / "kubernetes/overlays").iterdir()):
        name = overlay.name
        environment = {**shared["defaults"], **shared["environments"][name]}
        rendered = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, check=True).stdout
        resources = {}
        for resource in yaml.safe_load_all(rendered):
            resources[resource["kind"], resource["metadata"]["name"]] = resource
        check_environment(f"kubernetes {name}", shared, environment, resources, binary, volume, user)
        application = yaml.safe_load((INFRA / f"kubernetes/argocd/{name}.yml").read_text())["spec"]
        expect(f"argocd {name} path", application["source"]["path"], str(overlay.relative_to(ROOT)))
        expect(f"argocd {name} namespace", application["destination"]["namespace"], f"pulse-{name}")
        # Production waits for somebody's approval.
        expect(f"argocd {name} automated", "automated" in application["syncPolicy"], name in ("dev", "staging"))


def check_environment(place, shared, environment, resources, binary, volume, user):
    ports, paths = shared["ports"], shared["paths"]
    one = lambda kind: next(value for (found, _), value in resources.items() if found == kind)
    workload = resources["StatefulSet", "pulse-node"]["spec"]
    pod = workload["template"]["spec"]
    node = pod["containers"][0]
    file = INFRA / "kubernetes/base/config.toml"
    expect(f"{place} config map", one("ConfigMap")["data"]["config.toml"], file.read_text())
    config = config_of(binary, file, {entry["name"]: entry["value"] for entry in node["env"]})
    listening = {
        "http": port(config["http"]["addr"]),
        "ops": port(config["http"]["ops_addr"]),
        "p2p": port(config["p2p"]["listen"]),
        "fleet": port(config["fleet"]["listen"]),
    }
    # In a cluster of Terraform's, the balancer is Terraform's too.
    has_balancer = environment["balancer"] and environment["kubernetes"] is None
    if has_balancer:
        listening["electrum_tls"] = port(config["electrum"]["tls_addr"])
    found = {entry["name"].replace("-", "_"): entry["containerPort"] for entry in node["ports"]}
    expect(f"{place} fleet over QUIC", found.pop("fleet_quic"), ports["fleet"])
    expect(f"{place} container ports", found, listening)
    expect(f"{place} ports", listening, {key: ports[key] for key in listening})
    expect(f"{place} network", config["node"]["network"], environment["network"])
    expect(f"{place} stop", config["node"]["stop_timeout_secs"], shared["instance"]["stop_timeout_secs"])
    if pod["terminationGracePeriodSeconds"] <= config["node"]["stop_timeout_secs"] + config["node"]["drain_secs"]:
        problems.append(f"{place}: the node is killed before it may have stopped")
    for probe, path in (("startupProbe", "live"), ("livenessProbe", "live"), ("readinessProbe", "ready")):
        expect(f"{place} {probe}", node[probe]["httpGet"], {"path": paths[path], "port": "http"})
    mounts = {mount["name"]: mount["mountPath"] for mount in node["volumeMounts"]}
    expect(f"{place} volume", mounts["data"], volume)
    expect(f"{place} data directory", Path(config["node"]["data_dir"]).parent, Path(volume))
    expect(f"{place} key of the fleet", str(Path(config["fleet"]["key_file"]).parent), mounts["fleet"])
    expect(f"{place} user", pod["securityContext"]["runAsUser"], int(user))
    expect(f"{place} service links", pod["enableServiceLinks"], False)
    expect(f"{place} read-only root", node["securityContext"]["readOnlyRootFilesystem"], True)
    claim = workload["volumeClaimTemplates"][0]["spec"]
    expect(f"{place} size", claim["resources"]["requests"]["storage"], f"{environment['volume_gb']}Gi")
    expect(f"{place} storage class", claim["storageClassName"], one("StorageClass")["metadata"]["name"])
    monitor = one("ServiceMonitor")["spec"]["endpoints"][0]
    expect(f"{place} ServiceMonitor", (monitor["port"], monitor["path"]), ("ops", paths["metrics"]))
    seed_name, seed_port = config["fleet"]["seeds"][0].rsplit(":", 1)
    fleet = resources["Service", seed_name]["spec"]
    expect(f"{place} fleet service", (fleet["clusterIP"], fleet["publishNotReadyAddresses"]), ("None", True))
    expect(f"{place} fleet seed", int(seed_port), ports["fleet"])
    expect(f"{place} governing service", workload["serviceName"], seed_name)
    low, high = environment["nodes"]
    if environment["kubernetes"] is not None:
        binding = one("TargetGroupBinding")["spec"]
        expect(f"{place} target", binding["serviceRef"], {"name": "pulse-node", "port": "http"})
        # One in each zone.
        expect(f"{place} pods", workload["replicas"], environment["zones"])
    elif has_balancer:
        scaler = one("HorizontalPodAutoscaler")["spec"]
        expect(f"{place} pods", [scaler["minReplicas"], scaler["maxReplicas"]], [low, high])
        expect(f"{place} replicas beside the autoscaler", "replicas" in workload, False)
        public = {entry["port"] for entry in resources["Service", "pulse-node-public"]["spec"]["ports"]}
        expect(f"{place} public ports", public, {ports["electrum_tls"], ports["p2p"]})
        prefix = "service.beta.kubernetes.io/aws-load-balancer-healthcheck-"
        notes = resources["Service", "pulse-node-public"]["metadata"]["annotations"]
        expect(f"{place} NLB health", (notes[prefix + "port"], notes[prefix + "path"]), (str(ports["http"]), paths["ready"]))
        notes = one("Ingress")["metadata"]["annotations"]
        expect(f"{place} ALB health", notes["alb.ingress.kubernetes.io/healthcheck-path"], paths["ready"])
    else:
        expect(f"{place} pods", workload["replicas"], low)


def main():
    shared, binary = json.loads((INFRA / "environments.json").read_text()), sys.argv[1]
    volume, user = check_dockerfile(shared, binary)
    check_compose(shared, binary, volume)
    check_kubernetes(shared, binary, volume, user)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


main()
