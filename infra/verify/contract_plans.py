#!/usr/bin/env python3
"""What the plans of infra/terraform say must agree with environments.json, with what the
instances send and with the routes that the API has; and some rules hold in every plan.

    contract_plans.py DIR        with ENVIRONMENT.json in it, made by `terraform show -json`
"""

import fnmatch
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
problems = []


def expect(place, found, expected):
    if found != expected:
        problems.append(f"{place}: {found!r}, but it should be {expected!r}")


def resources(module):
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from resources(child)


class Plan:
    """The resources of one environment's plan."""

    def __init__(self, name, path):
        self.name = name
        self.all = list(resources(json.loads(path.read_text())["planned_values"]["root_module"]))

    def of(self, kind):
        """(where, values) of each resource of a type."""
        for resource in self.all:
            if resource["type"] == kind and resource["mode"] == "managed":
                yield f"{self.name}: {resource['address']}", resource["values"]


def check_health(plan, shared):
    ports, ready = shared["ports"], shared["paths"]["ready"]
    for where, group in plan.of("aws_lb_target_group"):
        check = group["health_check"][0]
        expect(f"{where} path", check["path"], ready)
        asked = group["port"] if check.get("port") in (None, "traffic-port", "known-after-apply") else int(check["port"])
        expect(f"{where} health port", asked, ports["http"])
        expect(f"{where} delay", int(group["deregistration_delay"]), shared["instance"]["stop_timeout_secs"])
    for where, check in plan.of("aws_route53_health_check"):
        expect(f"{where} path", check["resource_path"], ready)
    for where, group in plan.of("aws_autoscaling_group"):
        expect(f"{where} is replaced by", group["health_check_type"], "EC2")


def check_ports(plan, shared):
    ports = shared["ports"]
    listeners = {443, 80, ports["electrum_tls"], ports["p2p"]}
    for where, listener in plan.of("aws_lb_listener"):
        if listener["port"] not in listeners:
            problems.append(f"{where} listens on {listener['port']}")
    for where, rule in plan.of("aws_vpc_security_group_ingress_rule"):
        if rule["cidr_ipv4"] == "0.0.0.0/0" and rule["from_port"] not in listeners:
            problems.append(f"{where} opens port {rule['from_port']} to everybody")
        if rule["from_port"] != rule["to_port"]:
            problems.append(f"{where} opens a range of ports")


def check_volumes(plan, shared):
    environment = shared["environments"][plan.name]
    least = 1200 if environment["network"] == "mainnet" else 100
    sizes = [(where, volume["size"]) for where, volume in plan.of("aws_ebs_volume")]
    for where, template in plan.of("aws_launch_template"):
        for device in template["block_device_mappings"]:
            ebs = device["ebs"][0]
            expect(f"{where} {device['device_name']} is encrypted", ebs["encrypted"], "true")
            if device["device_name"] == "/dev/sdf":
                sizes.append((where, ebs["volume_size"]))
    for where, size in sizes:
        expect(f"{where} size", size, environment["volume_gb"])
        if size < least:
            problems.append(f"{where}: {environment['network']} needs at least {least} GB")
    # Pods have theirs from infra/kubernetes.
    if not sizes and not environment.get("kubernetes"):
        problems.append(f"{plan.name}: no volume for data")


def check_nodes(plan, shared):
    low, high = shared["environments"][plan.name]["nodes"]
    for where, group in plan.of("aws_autoscaling_group"):
        expect(f"{where} nodes", [group["min_size"], group["max_size"]], [low, high])


def sent_metrics():
    """Names of metrics in our own namespace, as their senders have them."""
    agent = json.loads((INFRA / "instance/cloudwatch-agent.json").read_text())["metrics"]
    names = {
        f"{plugin}_{measurement}"
        for plugin, settings in agent["metrics_collected"].items()
        for setting in (settings if isinstance(settings, list) else [settings])
        for measurement in setting["measurement"]
    }
    for sender in ("instance/scripts/report", "lambda/health_check/handler.py"):
        names |= set(re.findall(r'"([A-Z][A-Za-z]+)"', (INFRA / sender).read_text()))
    return names, [set(dimensions) for dimensions in agent["aggregation_dimensions"]]


def check_alarms(plan, sent, dimensions):
    for where, alarm in plan.of("aws_cloudwatch_metric_alarm"):
        if alarm["namespace"] != "Pulse" or alarm["metric_name"].endswith("-errors"):
            continue
        if alarm["metric_name"] not in sent:
            problems.append(f"{where}: nobody sends {alarm['metric_name']}")
        if alarm["metric_name"] == "disk_used_percent" and set(alarm["dimensions"]) not in dimensions:
            problems.append(f"{where}: the agent does not send {sorted(alarm['dimensions'])}")


def check_routes(plan, routes):
    """Each pattern of the CDN is of a route that exists, at the root and under /api."""
    for where, distribution in plan.of("aws_cloudfront_distribution"):
        for behavior in distribution["ordered_cache_behavior"]:
            pattern = behavior["path_pattern"]
            for prefix in ("", "/api"):
                if not any(fnmatch.fnmatchcase(prefix + route, pattern) for route in routes):
                    problems.append(f"{where}: {pattern} fits no route")


def main():
    shared = json.loads((INFRA / "environments.json").read_text())
    tables = "".join(path.read_text() for path in (ROOT / "api/src/rest/router").glob("*.rs"))
    routes = set(re.findall(r'(?:get|post)\(\s*"(/[^"]*)"', tables)) | {"/ws", "/events"}
    sent, dimensions = sent_metrics()
    plans = sorted(Path(sys.argv[1]).glob("*.json"))
    expect("plans", {path.stem for path in plans}, set(shared["environments"]))
    for path in plans:
        plan = Plan(path.stem, path)
        check_health(plan, shared)
        check_ports(plan, shared)
        check_volumes(plan, shared)
        check_nodes(plan, shared)
        check_alarms(plan, sent, dimensions)
        check_routes(plan, routes)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


main()
