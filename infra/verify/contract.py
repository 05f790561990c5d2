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


# What a renewal of a group takes for each batch of nodes, in seconds: the machine and its
# snapshot (of which a sixth or so of the volume is read at 500 MiB/s), the last blocks, the
# warm-up, the drain.
BATCH_SECS = {"mainnet": 2700, "testnet4": 1200}
# Of a machine that starts again, with the last blocks.
RESTART_SECS = 900
# A hosted job lasts six hours at most.
HOSTED_MINUTES = 360


def check_deployments(shared):
    """Each environment may take as long as its nodes need one after the other; and the workflow has
    time for a deployment and its roll-back, with credentials that last."""
    waits = []
    for name, environment in shared["environments"].items():
        environment = shared["defaults"] | environment
        wait, low = environment["deploy_wait_secs"], environment["nodes"][0]
        waits.append(wait)
        # Half of the fewest nodes more, at a time (max_healthy_percentage of node-asg).
        batches = -(-low // max(1, low // 2)) if low else 0
        needed = RESTART_SECS if environment["nodes"][1] < 2 else batches * BATCH_SECS[environment["network"]]
        if wait < needed:
            problems.append(f"{name}: deploy_wait_secs is {wait}, but its nodes need {needed}")
    workflow = (ROOT / ".github/workflows/deploy.yml").read_text()
    (minutes,) = map(int, re.findall(r"timeout-minutes: (\d+)", workflow))
    durations = [int(found) for found in re.findall(r"role-duration-seconds: (\d+)", workflow)]
    if not 2 * max(waits) < minutes * 60 < HOSTED_MINUTES * 60:
        problems.append(f"deploy.yml: {minutes} minutes are not enough for a deployment and its roll-back, or too many")
    if len(durations) != 2 or min(durations) <= max(waits):
        problems.append(f"deploy.yml: credentials of {durations} s do not last")


def main():
    shared = json.loads(text("environments.json"))
    check_binary(shared, sys.argv[1])
    check_unit(shared)
    check_instance(shared)
    check_agent(shared)
    check_edge(shared)
    check_sizes(shared)
    check_deployments(shared)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


main()
