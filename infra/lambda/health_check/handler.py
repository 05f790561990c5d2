"""Compares our node with a public Esplora API, every five minutes.

What it finds goes to CloudWatch as metrics, on which the alarms stand; a check that cannot
be made counts as failed for our node and as unknown for the public one, so that an outage
of theirs wakes nobody here.

Environment: NODE_URL, PUBLIC_URL (may be empty), NAMESPACE, NODE_NAME, TIMEOUT_SECS.
"""

import json
import os
import time
import urllib.error
import urllib.request

# No answer of either API to these questions is longer.
LONGEST_ANSWER_BYTES = 64 * 1024


def ask(base, path, timeout):
    """The body of an answer with status 200 as text.

    Raises OSError (of which URLError is one) or ValueError.
    """
    with urllib.request.urlopen(base.rstrip("/") + path, timeout=timeout) as answer:
        body = answer.read(LONGEST_ANSWER_BYTES + 1)
    if len(body) > LONGEST_ANSWER_BYTES:
        raise ValueError(f"{path}: the answer is too long")
    return body.decode("ascii")


def height_of(base, timeout):
    height = int(ask(base, "/blocks/tip/height", timeout))
    if not 0 <= height < 2**31:
        raise ValueError(f"{height} is no height")
    return height


def block_age(base, height, timeout, now):
    """Seconds since the time that the block at this height states; 0 if that lies ahead."""
    block = ask(base, "/block-height/%d" % height, timeout)
    stated = json.loads(ask(base, "/block/" + block, timeout))["timestamp"]
    return max(0, int(now - stated))


def check(node, public, timeout, now=None):
    """Metrics by name. `Reachable` is always there, the others where they are known."""
    now = time.time() if now is None else now
    started = time.monotonic()
    try:
        ours = height_of(node, timeout)
    except (OSError, ValueError):
        return {"Reachable": 0}
    found = {
        "Reachable": 1,
        "TipHeight": ours,
        "AnswerSeconds": time.monotonic() - started,
    }
    try:
        found["TipAgeSeconds"] = block_age(node, ours, timeout, now)
    except (OSError, ValueError, KeyError, TypeError):
        found["Reachable"] = 0
    if public:
        try:
            found["BlocksBehind"] = max(0, height_of(public, timeout) - ours)
        except (OSError, ValueError):
            pass
    return found


def handler(_event, _context):
    import boto3

    found = check(
        os.environ["NODE_URL"],
        os.environ.get("PUBLIC_URL", ""),
        float(os.environ.get("TIMEOUT_SECS", "10")),
    )
    boto3.client("cloudwatch").put_metric_data(
        Namespace=os.environ["NAMESPACE"],
        MetricData=[
            {
                "MetricName": name,
                "Value": value,
                "Dimensions": [{"Name": "Node", "Value": os.environ["NODE_NAME"]}],
            }
            for name, value in found.items()
        ],
    )
    return found
