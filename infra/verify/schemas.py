#!/usr/bin/env python3
"""What the published bindings do not tell of the schemas, written after the providers'
documentation: the provider hashicorp/archive, and the statements of firewall rules, which
nest without end and are therefore untyped there. Only what infra/terraform uses.

    schemas.py AWS_SCHEMA_JSON ARCHIVE_SCHEMA_JSON
"""

import json
import sys


def block(attributes="", blocks=None, computed=""):
    """Attributes as `name:type`, a trailing * for required ones."""
    types = {"s": "string", "n": "number", "ss": ["set", "string"], "ls": ["list", "string"]}
    found = {}
    for word in attributes.split():
        name, kind = word.rstrip("*").split(":")
        found[name] = {"type": types[kind], "required" if word.endswith("*") else "optional": True}
    for word in computed.split():
        name, kind = word.split(":")
        found[name] = {"type": types[kind], "computed": True}
    return {"attributes": found, "block_types": blocks or {}}


def one(inner, required=False):
    nested = {"nesting_mode": "list", "max_items": 1, "block": inner}
    return nested | ({"min_items": 1} if required else {})


def many(inner, required=False):
    nested = {"nesting_mode": "set", "block": inner}
    return nested | ({"min_items": 1} if required else {})


def firewall_statement():
    geo = block("country_codes:ls*")
    method = block("search_string:s* positional_constraint:s*", {
        "field_to_match": one(block(blocks={"method": one(block())})),
        "text_transformation": many(block("priority:n* type:s*"), required=True),
    })
    scope_down = block(blocks={"byte_match_statement": one(method), "geo_match_statement": one(geo)})
    return block(blocks={
        "geo_match_statement": one(geo),
        "rate_based_statement": one(block("limit:n* aggregate_key_type:s evaluation_window_sec:n",
                                          {"scope_down_statement": one(scope_down)})),
        "managed_rule_group_statement": one(block("vendor_name:s* name:s* version:s", {
            "rule_action_override": {"nesting_mode": "list", "block": block("name:s*", {
                "action_to_use": one(block(blocks={"count": one(block())}), required=True),
            })},
        })),
    })


def main():
    aws = json.load(open(sys.argv[1]))
    rule = aws["resources"]["aws_wafv2_web_acl"]["block_types"]["rule"]["block"]
    rule["attributes"].pop("statement", None)
    rule["block_types"]["statement"] = one(firewall_statement(), required=True)
    json.dump(aws, open(sys.argv[1], "w"), sort_keys=True)
    archive = {"provider": block(), "resources": {}, "data_sources": {"archive_file": block(
        "type:s* source_file:s source_dir:s excludes:ss output_path:s*",
        computed="output_base64sha256:s output_size:n id:s")}}
    json.dump(archive, open(sys.argv[2], "w"))


main()
