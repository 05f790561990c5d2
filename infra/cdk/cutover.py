#!/usr/bin/env python3
"""Moves requests from the live slot to the other one by degrees, and back if that goes wrong.

    cutover.py ENVIRONMENT blue|green [--wait SECONDS] [--back]

The stack must have both slots (`cdk deploy ... -c live=` the old one). At each of the steps of
environments.json the new slot gets that part of the requests for `--wait` seconds (default 900);
when one of the alarms pulse-ENVIRONMENT-cutover-* is raised, all requests go back to the old
slot and the exit code is 1. With --back they go back at once, whatever the alarms say. At the end: `cdk deploy ... -c live=` the new one, so that the
template says the same, and later once more without the old slot.

Needs: elasticloadbalancing:Describe*, ModifyListener, cloudwatch:DescribeAlarms, and
cloudformation:DescribeStackResources.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import boto3

SHARED = json.loads((Path(__file__).parents[1] / "environments.json").read_text())
STEPS = SHARED["self_hosted"]["cutover"]["steps_percent"]
# How often the alarms are looked at, in seconds.
POLL = 15


class Cutover:
    def __init__(self, environment, slot):
        self.elb = boto3.client("elbv2")
        self.cloudwatch = boto3.client("cloudwatch")
        self.prefix = f"pulse-{environment}-cutover-"
        resources = boto3.client("cloudformation").describe_stack_resources(StackName=f"PulseEsplora-{environment}")
        groups = {}
        listeners = []
        for found in resources["StackResources"]:
            if found.get("ResourceType") == "AWS::ElasticLoadBalancingV2::TargetGroup":
                groups["green" if found["LogicalResourceId"].startswith("AlbGreen") else "blue"] = found["PhysicalResourceId"]
            if found.get("ResourceType") == "AWS::ElasticLoadBalancingV2::Listener":
                listeners.append(found["PhysicalResourceId"])
        if len(groups) != 2:
            sys.exit("cutover: the stack has no two slots behind a balancer")
        described = self.elb.describe_listeners(ListenerArns=listeners)["Listeners"]
        self.listener = next(one["ListenerArn"] for one in described if one["Port"] == 443)
        self.new = groups.pop(slot)
        (self.old,) = groups.values()

    def give(self, percent):
        """Sends this part of the requests to the new slot."""
        print(f"cutover: {percent} % to the new slot", flush=True)
        self.elb.modify_listener(
            ListenerArn=self.listener,
            DefaultActions=[{
                "Type": "forward",
                "ForwardConfig": {"TargetGroups": [
                    {"TargetGroupArn": self.new, "Weight": percent},
                    {"TargetGroupArn": self.old, "Weight": 100 - percent},
                ]},
            }],
        )

    def trouble(self):
        """Names of alarms that are raised; all three must be there."""
        alarms = self.cloudwatch.describe_alarms(AlarmNamePrefix=self.prefix)["MetricAlarms"]
        if len(alarms) != 3:
            return [f"{len(alarms)} of 3 alarms found"]
        return [alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM"]

    def run(self, wait):
        for percent in STEPS:
            trouble = self.trouble()
            if not trouble:
                self.give(percent)
                until = time.monotonic() + wait
                while not (trouble := self.trouble()) and time.monotonic() < until:
                    time.sleep(min(POLL, max(0, until - time.monotonic())))
            if trouble:
                print(f"cutover: rolled back: {', '.join(trouble)}", file=sys.stderr)
                self.give(0)
                return 1
        return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("environment")
    parser.add_argument("slot", choices=["blue", "green"])
    parser.add_argument("--wait", type=float, default=900)
    parser.add_argument("--back", action="store_true")
    given = parser.parse_args()
    if given.back:
        Cutover(given.environment, given.slot).give(0)
        return
    sys.exit(Cutover(given.environment, given.slot).run(given.wait))


main()
