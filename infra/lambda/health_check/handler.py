"""Compares our node with a public Esplora API, every five minutes.

What it finds goes to CloudWatch as metrics, on which the alarms stand; a check that cannot
be made counts as failed for our node and as unknown for the public one, so that an outage
of theirs wakes nobody here.

During a cut-over two nodes stand behind one address. Each is then asked besides what clients
reach: a request header names it to the balancer.

Environment: NODE_URL, PUBLIC_URL (may be empty), NAMESPACE, NODE_NAME, TIMEOUT_SECS, SLOTS
(names of nodes with blanks between, may be empty), SLOT_HEADER.
"""

import json
import os
import time
import urllib.error
import urllib.request

# No answer of either API to these questions is longer.
LONGEST_ANSWER_BYTES = 64 * 1024


def ask(base, path, timeout, headers=None):
    """The body of an answer with status 200 as text.

    Raises OSError (of which URLError is one) or ValueError.
    """
    request = urllib.request.Request(base.rstrip("/") + path, headers=headers or {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        body = answer.read(LONGEST_ANSWER_BYTES + 1)
    if len(body) > LONGEST_ANSWER_BYTES:
        raise ValueError(f"{path}: the answer is too long")
    return body.decode("ascii")


def answers(base, path, timeout, headers):
    """1 if there is an answer with status 200, else 0."""
    try:
        ask(base, path, timeout, headers)
    except (OSError, ValueError):
        return 0
    return 1


def height_of(base, timeout, headers=None):
    height = int(ask(base, "/blocks/tip/height", timeout, headers))
    if not 0 <= height < 2**31:
        raise ValueError(f"{height} is no height")
    return height


def block_age(base, height, timeout, headers, now):
    """Seconds since the time that the block at this height states; 0 if that lies ahead."""
    block = ask(base, "/block-height/%d" % height, timeout, headers)
    stated = json.loads(ask(base, "/block/" + block, timeout, headers))["timestamp"]
    return max(0, int(now - stated))


def check(node, public, timeout, headers=None, now=None):
    """Metrics by name. `Reachable`, `Live` (the process runs) and `Ready` (it is synced) are
    always there, the others where they are known."""
    now = time.time() if now is None else now
    found = {
        "Live": answers(node, "/health/live", timeout, headers),
        "Ready": answers(node, "/health", timeout, headers),
    }
    started = time.monotonic()
    try:
        ours = height_of(node, timeout, headers)
    except (OSError, ValueError):
        return found | {"Reachable": 0}
    found["AnswerSeconds"] = time.monotonic() - started
    found["TipHeight"] = ours
    found["Reachable"] = 1
    try:
        found["TipAgeSeconds"] = block_age(node, ours, timeout, headers, now)
    except (OSError, ValueError, KeyError, TypeError):
        found["Reachable"] = 0
    if public:
        try:
            found["BlocksBehind"] = max(0, height_of(public, timeout) - ours)
        except (OSError, ValueError):
            pass
    return found


def check_all(environment):
    """Metrics by the name of the node: of what clients reach, and of each slot."""
    name, url = environment["NODE_NAME"], environment["NODE_URL"]
    public = environment.get("PUBLIC_URL", "")
    timeout = float(environment.get("TIMEOUT_SECS", "10"))
    found = {name: check(url, public, timeout)}
    for slot in environment.get("SLOTS", "").split():
        found[f"{name}-{slot}"] = check(url, public, timeout, {environment["SLOT_HEADER"]: slot})
    return found


def handler(_event, _context):
    import boto3

    found = check_all(os.environ)
    boto3.client("cloudwatch").put_metric_data(
        Namespace=os.environ["NAMESPACE"],
        MetricData=[
            {
                "MetricName": name,
                "Value": value,
                "Dimensions": [{"Name": "Node", "Value": node}],
            }
            for node, metrics in found.items()
            for name, value in metrics.items()
        ],
    )
    return found
