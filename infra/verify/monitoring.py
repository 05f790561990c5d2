#!/usr/bin/env python3
"""What rules, dashboards and runbooks say must agree with each other and with the node.

    monitoring.py              metric names against docs/metrics.md, runbooks against alerts
    monitoring.py --live URL   and every expression against a running Prometheus, whose
                               targets include a pulse node
"""

import json
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "infra/monitoring"
RULES = MONITORING / "prometheus/rules/pulse-node.yml"
# What a histogram has besides its name.
SUFFIXES = ("_bucket", "_count", "_sum")


def dashboards():
    return sorted((MONITORING / "grafana/dashboards").glob("*.json"))


def expressions_of_dashboards():
    """Pairs of a place and an expression, with every node selected."""
    for path in dashboards():
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.name}: {panel['title']}", target["expr"].replace("$instance", ".*")


def names_in(text):
    return set(re.findall(r"\bpulse_[a-z0-9_]+", text))


def check_names(problems):
    documented = names_in((ROOT / "docs/metrics.md").read_text())
    recorded = set(re.findall(r"record: (\S+)", RULES.read_text()))
    for name in documented.copy():
        documented.update(name + suffix for suffix in SUFFIXES)

    def check(place, text):
        for record in recorded:
            text = text.replace(record, "")
        for name in sorted(names_in(text) - documented):
            problems.append(f"{place}: {name} is not in docs/metrics.md")

    for place, expression in expressions_of_dashboards():
        check(place, expression)
    check(RULES.name, RULES.read_text())
    tests = (MONITORING / "prometheus/tests/pulse-node.yml").read_text()
    check("tests of the rules", tests)
    for alert in re.findall(r"- alert: (\S+)", RULES.read_text()):
        if not re.search(rf"alertname: {alert}\n", tests):
            problems.append(f"{alert} has no test that it fires")


def check_runbooks(problems):
    alerts = re.findall(r"- alert: (\S+)", RULES.read_text())
    links = re.findall(r"runbook: docs/runbooks\.md#(\S+)", RULES.read_text())
    sections = re.findall(r"^## (\S+)$", (ROOT / "docs/runbooks.md").read_text(), re.M)
    if links != [alert.lower() for alert in alerts]:
        problems.append("each alert must link to the runbook of its own name")
    for alert in sorted(set(alerts) ^ set(sections)):
        problems.append(f"{alert} stands in only one of the rules and docs/runbooks.md")


def check_live(problems, base):
    def get(path, **query):
        url = f"{base}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    groups = get("/api/v1/rules")["groups"]
    for group in groups:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                problems.append(f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}")
    known = set(get("/api/v1/label/__name__/values"))
    for place, expression in expressions_of_dashboards():
        try:
            found = get("/api/v1/query", query=expression)["result"]
        except urllib.error.HTTPError as error:
            problems.append(f"{place}: {error.read().decode()}")
            continue
        # A counter that never counted, or a rate of one, may be missing.
        if not found and not any(name in known for name in names_in(expression)):
            print(f"{place}: nothing yet")
    return len(groups)


def main():
    problems = []
    check_names(problems)
    check_runbooks(problems)
    if len(sys.argv) == 3 and sys.argv[1] == "--live":
        if not check_live(problems, sys.argv[2]):
            problems.append("Prometheus has no rules")
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


main()
