#!/usr/bin/env python3
"""Applies infra/terraform to a local AWS endpoint with the real provider, and accounts for every
resource.

    AWS_PROVIDER=DIR terraform_local.py [ENVIRONMENT...]

DIR has the provider hashicorp/aws as a file system mirror of Terraform (HOST/hashicorp/aws/VERSION/
linux_amd64). No package registry that ci/setup-infra.sh uses has it, so this is run by hand where
it lies at hand; `make test-infra` does without.

Each environment (dev unless others are named; no other has been tried yet) is applied, and each resource of its
plan must be in the state and be read back by the provider from the service's own API, with nothing
left to change. Then it gets another version: a single node must be stopped and started with other
user data, and not be replaced; a group must get another launch template. At last all is destroyed.

The provider may be older than the configuration asks for. What a version 5 does not know (the
region of a single resource, one argument of EKS) is taken from a copy, which then has one region.
The endpoint is moto (local_aws.py, and CALLS here). What it cannot make stands in CANNOT, and what
it makes but tells differently in TOLD; both are checked to be needed.
"""

import base64
import email
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from deploy import REGION, start_endpoint

INFRA = Path(__file__).resolve().parents[1]
# Types that moto does not make, with a call of their service that says so.
CANNOT = {
    "aws_backup_selection": ("backup", "list_backup_selections", {"BackupPlanId": "1"}),
}
# Address (less its index) and attribute that moto tells differently from what it was told.
TOLD = {
    ("module.access.aws_vpc_security_group_egress_rule.balancer", "description"): "lost where the other end is a group",
    ("module.access.aws_vpc_security_group_ingress_rule.fleet", "description"): "lost where the other end is a group",
    ("module.access.aws_vpc_security_group_ingress_rule.node_http", "description"): "lost where the other end is a group",
    ("module.backup.aws_backup_plan.daily", "tags_all"): "moto takes tags for those of a template",
    ("module.backup.aws_backup_vault.here", "tags_all"): "moto takes tags for those of a template",
}
problems = []


def take_out(source, kind, name):
    """Source without the block `kind` of type `name`, whatever its label."""
    return re.sub(rf'^{kind} "{name}" "[^"]*" {{\n.*?^}}\n', "", source, flags=re.S | re.M)


def adapt(folder, version):
    """The configuration for an older provider, at an endpoint, without what cannot be made."""
    for path in folder.rglob("*.tf"):
        source = path.read_text()
        source = source.replace('"~> 6.25"', f'"{version}"')
        # No state in S3, and no provider of archives: the zip is made here.
        source = re.sub(r'^  backend "s3" {.*?^  }\n', "", source, flags=re.S | re.M)
        source = re.sub(r"^    archive = {.*?^    }\n", "", source, flags=re.S | re.M)
        source = take_out(source, "data", "archive_file")
        source = source.replace("data.archive_file.handler.output_path", '"${path.root}/handler.zip"')
        source = source.replace(
            "data.archive_file.handler.output_base64sha256", 'filebase64sha256("${path.root}/handler.zip")')
        if version.startswith("5."):
            source = source.replace("data.aws_region.here.region", "data.aws_region.here.name")
            lines, kind = [], ""
            for line in source.splitlines(keepends=True):
                found = re.match(r"(\w+) ", line)
                kind = found[1] if found else kind
                if not (kind in ("resource", "data") and re.match(r"  region +=", line)):
                    lines.append(line)
            source = "".join(lines)
            if path.parent.name == "eks":
                source = re.sub(r"^  deletion_protection .*\n", "", source, flags=re.M)
        for absent in CANNOT:
            source = take_out(source, "resource", absent)
        # Here it goes, at the end.
        source = re.sub(r"^    prevent_destroy = true\n", "", source, flags=re.M)
        path.write_text(source)
    # moto has no machines of the spot market.
    shared = json.loads((folder.parent / "environments.json").read_text())
    for environment in shared["environments"].values():
        environment["spot"] = False
    (folder.parent / "environments.json").write_text(json.dumps(shared))
    with zipfile.ZipFile(folder / "handler.zip", "w") as packed:
        packed.write(INFRA / "lambda/health_check/handler.py", "handler.py")
    (folder / "endpoint_override.tf").write_text(
        'provider "aws" {\n  skip_credentials_validation = true\n  skip_metadata_api_check = true\n'
        "  s3_use_path_style = true\n}\n")


class Terraform:
    def __init__(self, folder, aws, environment, settings):
        self.folder, self.environment = folder, environment
        self.state = folder / f"{environment}.tfstate"
        self.variables = os.environ | settings | {
            "AWS_ENDPOINT_URL": aws.endpoint, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1", "AWS_MAX_ATTEMPTS": "4", "TF_CLI_CONFIG_FILE": str(folder / "rc"), "TF_VAR_environment": environment,
        }

    def __call__(self, *arguments, good=(0,), patience=600):
        done = subprocess.run(
            ["terraform", *arguments], cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=patience)
        if done.returncode not in good:
            sys.exit(f"terraform_local: {self.environment}: terraform {arguments[0]}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
        return done

    def plan(self, version, *more):
        """The plan for a version, as JSON; saved as `next`."""
        self("plan", "-no-color", "-input=false", "-lock=false", f"-state={self.state}", "-out=next", "-var", f"node_version={version}", *more)
        return json.loads(self("show", "-json", "next").stdout)

    def apply(self):
        self("apply", "-no-color", "-input=false", "-lock=false", f"-state={self.state}", "next")

    def destroy(self, version):
        self("destroy", "-no-color", "-input=false", "-lock=false", "-auto-approve", f"-state={self.state}", "-var", f"node_version={version}")

    def addresses(self):
        return {line for line in self("state", "list", f"-state={self.state}").stdout.split() if not re.search(r"(^|\.)data\.", line)}


def changes(plan):
    """What a plan would do, by address."""
    return {
        change["address"]: change["change"] for change in plan["resource_changes"]
        if change["mode"] == "managed" and change["change"]["actions"] != ["no-op"]
    }


def differing(change):
    """Attributes in which two sides of a change differ."""
    before, after = change["before"] or {}, change["after"] or {}
    unknown = {key for key, value in (change.get("after_unknown") or {}).items() if value is True}
    return {key for key in before.keys() | after.keys() if key not in unknown and before.get(key) != after.get(key)} | unknown


def plain(address):
    return re.sub(r"\[[^\]]*\]", "", address)


def settle(terraform, version, used):
    """After an apply nothing is left to change, but what is TOLD differently."""
    for address, change in changes(terraform.plan(version)).items():
        told = {(plain(address), attribute) for attribute in differing(change)}
        if change["actions"] == ["update"] and told <= TOLD.keys():
            used |= told
        else:
            problems.append(f"{terraform.environment}: {address} is not as asked for: {change['actions']} {sorted(differing(change))} {change.get('replace_paths', '')}")


def script_of(user_data):
    """The script in the user data of a single node, as cloud-init reads it: run at every start."""
    packed = email.message_from_bytes(gzip.decompress(base64.b64decode(user_data)))
    parts = [(part.get_content_type(), part.get_payload()) for part in packed.walk() if not part.is_multipart()]
    if [kind for kind, _ in parts] != ["text/cloud-config", "text/x-shellscript"] or "[scripts-user, always]" not in parts[0][1]:
        raise ValueError(f"user data has {[kind for kind, _ in parts]}")
    subprocess.run(["bash", "-n"], input=parts[1][1], text=True, check=True)
    return parts[1][1]


def check_single(terraform, aws, version):
    """The machine of a single node has the script with this version; its id."""
    (instance,) = [
        found for one in aws.ec2.describe_instances()["Reservations"] for found in one["Instances"]
        if found["State"]["Name"] == "running"
    ]
    user_data = aws.ec2.describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")
    script = script_of(user_data["UserData"]["Value"])
    if not script.startswith("#!/bin/bash\n") or f"export SETUP_VERSION='{version}'\n" not in script:
        problems.append(f"{terraform.environment}: the machine does not install {version}")
    return instance["InstanceId"]


def scene(folder, environment):
    server, aws = start_endpoint()
    try:
        settings = {"TF_VAR_alarm_emails": '["ops@example.com"]'}
        shared = json.loads((INFRA / "environments.json").read_text())
        wanted = shared["defaults"] | shared["environments"][environment]
        if wanted["balancer"]:
            zone = aws.route53.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"]
            settings |= {
                "TF_VAR_domain": "api.example.com", "TF_VAR_web_domain": "example.com", "TF_VAR_zone_id": zone.rsplit("/", 1)[-1],
            }
        terraform = Terraform(folder, aws, environment, settings)
        used = set()
        planned = changes(terraform.plan("1.0.0"))
        terraform.apply()
        made = terraform.addresses()
        for address in sorted(planned.keys() - made):
            problems.append(f"{environment}: {address} was not made")
        settle(terraform, "1.0.0", used)
        absent = count_absent(environment, aws)
        print(f"terraform_local: {environment}: {len(made)} resources made and read back{absent}")
        single = wanted["nodes"] == [1, 1]
        first = single and check_single(terraform, aws, "1.0.0")
        asked = changes(terraform.plan("1.0.1"))
        asked = {address: change for address, change in asked.items() if not {(plain(address), name) for name in differing(change)} <= used}
        touched = {plain(address).rsplit(".", 2)[-2] for address in asked}
        if touched != ({"aws_instance"} if single else {"aws_launch_template", "aws_autoscaling_group"}):
            problems.append(f"{environment}: another version touches {sorted(asked)}")
        if any(change["actions"] != ["update"] for change in asked.values()):
            problems.append(f"{environment}: another version replaces something: {asked.keys()}")
        terraform.apply()
        settle(terraform, "1.0.1", used)
        if single and check_single(terraform, aws, "1.0.1") != first:
            problems.append(f"{environment}: another version is another machine")
        print(f"terraform_local: {environment}: another version: {', '.join(sorted(asked))}")
        terraform.destroy("1.0.1")
        if terraform.addresses():
            problems.append(f"{environment}: not all is destroyed")
        return used
    finally:
        server.terminate()
        server.wait()


def count_absent(environment, aws):
    """What stands in CANNOT is really absent."""
    for kind, (service, call, arguments) in CANNOT.items():
        try:
            getattr(aws.client(service), call)(**arguments)
            problems.append(f"moto does make {kind}: take it from CANNOT")
        except Exception as error:  # noqa: BLE001 moto says it in several ways
            if "NotImplemented" not in str(error) and "500" not in str(error):
                problems.append(f"{kind}: {error}")
    return "".join(f"; not {kind}, which moto has not" for kind in CANNOT)


def main():
    mirror = os.environ.get("AWS_PROVIDER")
    versions = sorted(Path(mirror).glob("*/hashicorp/aws/*/linux_amd64")) if mirror else []
    if not versions:
        sys.exit("terraform_local: AWS_PROVIDER has to name a folder with the provider hashicorp/aws")
    version = versions[-1].parent.name
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    work = Path(tempfile.mkdtemp(prefix="pulse-terraform-"))
    used, source = set(), "".join(path.read_text() for path in (INFRA / "terraform").rglob("*.tf"))
    try:
        shutil.copytree(INFRA, work / "infra", ignore=shutil.ignore_patterns("node_modules", ".terraform", "*.tfvars", "cdk.out"))
        folder = work / "infra/terraform"
        adapt(folder, version)
        (folder / "rc").write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{Path(mirror).resolve()}" }}\n}}\n')
        ready = False
        for environment in sys.argv[1:] or ["dev"]:
            if not ready:
                class Nowhere:
                    endpoint = "http://127.0.0.1:1"
                Terraform(folder, Nowhere, environment, {})("init", "-no-color", "-input=false")
                print(f"terraform_local: provider {version}")
                ready = True
            used |= scene(folder, environment)
    finally:
        shutil.rmtree(work)
    for kind in CANNOT:
        if f'resource "{kind}"' not in source:
            problems.append(f"{kind} is in CANNOT, but in no module")
    if not sys.argv[1:]:
        for told in TOLD.keys() - used:
            problems.append(f"{told} is in TOLD, but moto tells what it was told")
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


main()
