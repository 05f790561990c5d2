#!/usr/bin/env python3
"""Ports, paths and sizes stand in many places: in the binary's own configuration, the unit,
the instance's scripts, the edge, Terraform and CDK. They must agree with environments.json.

    contract.py NODE_BINARY
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
problems = []


def expect(place, found, expected):
    if found != expected:
        problems.append(f"{place}: {found!r}, but environments.json says {expected!r}")


def text(path):
    return (INFRA / path).read_text()


def port(addr):
    return int(addr.rsplit(":", 1)[1])


def check_binary(shared, binary):
    ports, instance = shared["ports"], shared["instance"]
    # The file that instances get must be one that the binary accepts.
    shown = subprocess.run(
        [binary, "config", "--config", INFRA / "instance/config.toml"],
        capture_output=True, text=True, check=True, env={"HOME": "/nonexistent"},
    ).stdout
    config = tomllib.loads(shown)
    expect("http.addr", port(config["http"]["addr"]), ports["http"])
    expect("node.stop_timeout_secs", config["node"]["stop_timeout_secs"], instance["stop_timeout_secs"])
    example = (ROOT / "config.example.toml").read_text()
    for key, name in (("ops_addr", "ops"), ("tls_addr", "electrum_tls"), ("listen", "p2p")):
        found = re.search(rf'^#?{key} = ".*:(\d+)"$', example, re.M)
        expect(f"config.example.toml {key}", found and int(found[1]), ports[name])


def check_unit(shared):
    unit, instance = text("instance/systemd/pulse-node.service"), shared["instance"]
    value = lambda key: re.search(rf"^{key}=(.*)$", unit, re.M)[1]
    expect("unit ExecStart", value("ExecStart"),
           f"{instance['root']}/bin/pulse-node --config {instance['config']} --data-dir {instance['data_dir']}")
    expect("unit RequiresMountsFor", value("RequiresMountsFor"), instance["data_volume"])
    expect("unit ReadWritePaths", value("ReadWritePaths"), instance["data_volume"])
    expect("unit User", value("User"), instance["user"])
    drain = int(re.search(r"PULSE_NODE__DRAIN_SECS=(\d+)", text("instance/install.sh"))[1])
    if int(value("TimeoutStopSec")) <= instance["stop_timeout_secs"] + drain:
        problems.append("unit TimeoutStopSec must be longer than node.stop_timeout_secs and drain_secs")


def check_instance(shared):
    ports, install = shared["ports"], text("instance/install.sh")
    for key, name in (
        ("PULSE_HTTP__ADDR", "http"), ("PULSE_HTTP__OPS_ADDR", "ops"),
        ("PULSE_ELECTRUM__TLS_ADDR", "electrum_tls"), ("PULSE_P2P__LISTEN", "p2p"),
    ):
        found = re.search(rf'"{key}=0\.0\.0\.0:(?:\$\{{\w+:-)?(\d+)\}}?"', install)
        expect(f"install.sh {key}", found and int(found[1]), ports[name])
    expect("report's ops address", re.search(r'SETUP_OPS", "\S+:(\d+)"', text("instance/scripts/report"))[1],
           str(ports["ops"]))


def check_agent(shared):
    """Alarms look at metrics by their dimensions; the agent must send them with just these."""
    agent = json.loads(text("instance/cloudwatch-agent.json"))["metrics"]
    if shared["instance"]["data_volume"] not in agent["metrics_collected"]["disk"]["resources"]:
        problems.append("cloudwatch-agent.json does not watch the data volume")
    sent = [set(dimensions) for dimensions in agent["aggregation_dimensions"]]
    for machine in ("InstanceId", "AutoScalingGroupName"):
        for detail in ("path", "exe"):
            if {machine, detail} not in sent:
                problems.append(f"cloudwatch-agent.json does not send {machine} with {detail}")
    expect("cloudwatch-agent.json namespace", agent["namespace"], "Pulse")


def check_edge(shared):
    haproxy = text("edge/haproxy/haproxy.cfg")
    expect("haproxy.cfg health check", re.search(r"http-check send meth GET uri (\S+)", haproxy)[1],
           shared["paths"]["ready"])


def check_sizes(shared):
    for name, environment in shared["environments"].items():
        if environment["network"] == "mainnet" and environment["volume_gb"] < 1200:
            problems.append(f"{name}: mainnet needs at least 1200 GB")
        low, high = environment["nodes"]
        if not (1 <= low <= high <= 10 or environment.get("kubernetes") and high == 0):
            problems.append(f"{name}: {low} to {high} nodes")


def main():
    shared = json.loads(text("environments.json"))
    check_binary(shared, sys.argv[1])
    check_unit(shared)
    check_instance(shared)
    check_agent(shared)
    check_edge(shared)
    check_sizes(shared)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


main()
