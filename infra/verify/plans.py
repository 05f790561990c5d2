#!/usr/bin/env python3
"""Makes plans fit for policies: what is configured, but known only after applying (a key's ARN,
a group's id), gets a name for a value, so that a policy sees that there is one. What nobody
configured stays unknown.

    plans.py PLAN_JSON...
"""

import json
import re
import sys

LATER = "known-after-apply"


def fill(values, unknown, expressions):
    """`values` with LATER for each attribute that is unknown and configured."""
    values = dict(values or {})
    for key, expression in expressions.items():
        inner = unknown.get(key)
        if isinstance(expression, list) and isinstance(inner, list):
            blocks = zip(values.get(key) or [], inner, expression)
            values[key] = [fill(*block) for block in blocks] + (values.get(key) or [])[len(expression):]
        elif isinstance(expression, dict) and inner is True:
            values[key] = LATER
        elif isinstance(expression, dict) and isinstance(inner, dict):
            values[key] = (values.get(key) or {}) | {name: LATER for name, missing in inner.items() if missing is True}
        elif isinstance(expression, dict) and isinstance(inner, list):
            # A list of references, of which some are known.
            known = values.get(key) or []
            values[key] = [LATER if missing is True else value for value, missing in zip(known, inner)] or known
    return values


def resources(module):
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from resources(child)


def configured(module, prefix=""):
    """Expressions by address, without the indices of instances."""
    for resource in module.get("resources", []):
        yield prefix + resource["address"], resource.get("expressions", {})
    for name, call in module.get("module_calls", {}).items():
        yield from configured(call["module"], f"{prefix}module.{name}.")


def main():
    for path in sys.argv[1:]:
        plan = json.load(open(path))
        expressions = dict(configured(plan["configuration"]["root_module"]))
        unknown = {change["address"]: change["change"].get("after_unknown", {}) for change in plan["resource_changes"]}

        def filled(address, values):
            plain = re.sub(r"\[[^\]]*\]", "", address)
            return fill(values, unknown.get(address, {}), expressions.get(plain, {}))

        for change in plan["resource_changes"]:
            if change["change"]["after"]:
                change["change"]["after"] = filled(change["address"], change["change"]["after"])
        for resource in resources(plan["planned_values"]["root_module"]):
            resource["values"] = filled(resource["address"], resource.get("values"))
        json.dump(plan, open(path, "w"))


main()
