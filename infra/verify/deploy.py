#!/usr/bin/env python3
"""Deploys the synthesised stacks to a local AWS endpoint, and accounts for every resource.

    deploy.py FOLDER       with one cloud assembly per folder, as cdk.sh leaves them

Each environment is created, and each resource of its template asked for through the API of its
own service. Then it is changed (the plan's next step: another version, a cut-over), the change
set must name just what differs, and at last deleted.

The endpoint is moto (local_aws.py). It judges no permissions and starts no machines; what it
cannot make at all stands in CANNOT, and is checked to be really absent.
"""

import io
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

ACCOUNT, REGION = "123456789012", "us-east-2"

# Types that moto makes neither through CloudFormation nor through a service of its own, and why.
CANNOT = {
    "AWS::DLM::LifecyclePolicy": "moto has no Data Lifecycle Manager",
    "Custom::VpcRestrictDefaultSG": "the work of a function, and moto runs functions in Docker only",
}
problems = []


class Aws:
    """Clients of the endpoint by the name of the service."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.clients = {}

    def __getattr__(self, service):
        return self.client(service)

    def client(self, service):
        if service not in self.clients:
            self.clients[service] = boto3.client(
                service, endpoint_url=self.endpoint, region_name=REGION,
                aws_access_key_id="test", aws_secret_access_key="test",
            )
        return self.clients[service]


def one(found):
    """The only element; an empty list is an absent resource."""
    found = list(found)
    if len(found) != 1:
        raise LookupError(f"{len(found)} found")
    return found[0]


def rules_of(aws, group, egress):
    listed = aws.ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])
    return [rule for rule in listed["SecurityGroupRules"] if rule["IsEgress"] is egress]


# How a resource of a type is seen: (API, physical id, properties with references resolved where
# CloudFormation tells them) -> what the service says of it. Absence raises.
SEEN = {
    "AWS::Budgets::Budget": lambda aws, id, p: aws.budgets.describe_budget(AccountId=ACCOUNT, BudgetName=id)["Budget"],
    "AWS::CertificateManager::Certificate": lambda aws, id, p: aws.acm.describe_certificate(CertificateArn=id)["Certificate"],
    "AWS::CloudWatch::Alarm": lambda aws, id, p: one(aws.cloudwatch.describe_alarms(AlarmNames=[id])["MetricAlarms"]),
    "AWS::CloudWatch::Dashboard": lambda aws, id, p: aws.cloudwatch.get_dashboard(DashboardName=id),
    "AWS::EC2::EIP": lambda aws, id, p: one(aws.ec2.describe_addresses(PublicIps=[id])["Addresses"]),
    "AWS::EC2::FlowLog": lambda aws, id, p: one(aws.ec2.describe_flow_logs(FlowLogIds=[id])["FlowLogs"]),
    "AWS::EC2::Instance": lambda aws, id, p: one(
        one(aws.ec2.describe_instances(InstanceIds=[id], Filters=[
            {"Name": "instance-state-name", "Values": ["pending", "running"]}])["Reservations"])["Instances"]),
    "AWS::EC2::InternetGateway": lambda aws, id, p: one(
        aws.ec2.describe_internet_gateways(InternetGatewayIds=[id])["InternetGateways"]),
    "AWS::EC2::LaunchTemplate": lambda aws, id, p: one(
        aws.ec2.describe_launch_template_versions(LaunchTemplateId=id, Versions=["$Latest"])["LaunchTemplateVersions"]),
    "AWS::EC2::RouteTable": lambda aws, id, p: one(aws.ec2.describe_route_tables(RouteTableIds=[id])["RouteTables"]),
    "AWS::EC2::Route": lambda aws, id, p: one(
        route for table in aws.ec2.describe_route_tables()["RouteTables"] for route in table["Routes"]
        if f"{table['RouteTableId']}~{route.get('DestinationCidrBlock')}" == id),
    "AWS::EC2::SecurityGroup": lambda aws, id, p: one(aws.ec2.describe_security_groups(GroupIds=[id])["SecurityGroups"]),
    "AWS::EC2::SecurityGroupIngress": lambda aws, id, p: one(
        rule for rule in rules_of(aws, p["GroupId"], False) if rule["FromPort"] == p["FromPort"]),
    "AWS::EC2::SecurityGroupEgress": lambda aws, id, p: one(
        rule for rule in rules_of(aws, p["GroupId"], True) if rule.get("FromPort") == p["FromPort"]),
    "AWS::EC2::Subnet": lambda aws, id, p: one(aws.ec2.describe_subnets(SubnetIds=[id])["Subnets"]),
    "AWS::EC2::SubnetRouteTableAssociation": lambda aws, id, p: one(
        tie for table in aws.ec2.describe_route_tables()["RouteTables"] for tie in table["Associations"]
        if tie["RouteTableAssociationId"] == id),
    "AWS::EC2::VPC": lambda aws, id, p: one(aws.ec2.describe_vpcs(VpcIds=[id])["Vpcs"]),
    "AWS::EC2::VPCEndpoint": lambda aws, id, p: one(
        found for found in aws.ec2.describe_vpc_endpoints(VpcEndpointIds=[id])["VpcEndpoints"] if found["State"] != "deleted"),
    "AWS::EC2::VPCGatewayAttachment": lambda aws, id, p: one(
        gateway for gateway in aws.ec2.describe_internet_gateways()["InternetGateways"]
        if any(tie["VpcId"] == p["VpcId"] for tie in gateway["Attachments"])),
    "AWS::EC2::Volume": lambda aws, id, p: one(aws.ec2.describe_volumes(VolumeIds=[id])["Volumes"]),
    "AWS::EC2::VolumeAttachment": lambda aws, id, p: one(
        tie for volume in aws.ec2.describe_volumes(VolumeIds=[p["VolumeId"]])["Volumes"] for tie in volume["Attachments"]
        if tie["InstanceId"] == p["InstanceId"]),
    "AWS::ElasticLoadBalancingV2::Listener": lambda aws, id, p: one(
        aws.elbv2.describe_listeners(ListenerArns=[id])["Listeners"]),
    "AWS::ElasticLoadBalancingV2::ListenerRule": lambda aws, id, p: one(aws.elbv2.describe_rules(RuleArns=[id])["Rules"]),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": lambda aws, id, p: one(
        aws.elbv2.describe_load_balancers(LoadBalancerArns=[id])["LoadBalancers"]),
    "AWS::ElasticLoadBalancingV2::TargetGroup": lambda aws, id, p: one(
        aws.elbv2.describe_target_groups(TargetGroupArns=[id])["TargetGroups"]),
    "AWS::Events::Rule": lambda aws, id, p: aws.events.describe_rule(Name=id.rsplit("/", 1)[-1]),
    "AWS::IAM::InstanceProfile": lambda aws, id, p: aws.iam.get_instance_profile(InstanceProfileName=id)["InstanceProfile"],
    # An attribute of the role, named by the policy's own name.
    "AWS::IAM::Policy": lambda aws, id, p: [
        aws.iam.get_role_policy(RoleName=role, PolicyName=p["PolicyName"]) for role in p["Roles"]],
    "AWS::IAM::Role": lambda aws, id, p: aws.iam.get_role(RoleName=id)["Role"],
    "AWS::KMS::Key": lambda aws, id, p: aws.kms.describe_key(KeyId=id)["KeyMetadata"],
    "AWS::Lambda::Function": lambda aws, id, p: aws.client("lambda").get_function(FunctionName=id)["Configuration"],
    "AWS::Lambda::Permission": lambda aws, id, p: one(
        statement for statement in json.loads(aws.client("lambda").get_policy(FunctionName=p["FunctionName"])["Policy"])["Statement"]
        if statement["Principal"]["Service"] == p["Principal"]),
    "AWS::Logs::LogGroup": lambda aws, id, p: one(
        group for group in aws.logs.describe_log_groups(logGroupNamePrefix=id)["logGroups"] if group["logGroupName"] == id),
    "AWS::Route53::RecordSet": lambda aws, id, p: one(
        record for record in aws.route53.list_resource_record_sets(HostedZoneId=p["HostedZoneId"])["ResourceRecordSets"]
        if (record["Name"], record["Type"]) == (p["Name"], p["Type"])),
    "AWS::S3::Bucket": lambda aws, id, p: [
        aws.s3.head_bucket(Bucket=id), aws.s3.get_bucket_lifecycle_configuration(Bucket=id)],
    "AWS::S3::BucketPolicy": lambda aws, id, p: aws.s3.get_bucket_policy(Bucket=p["Bucket"])["Policy"],
    "AWS::SNS::Subscription": lambda aws, id, p: aws.sns.get_subscription_attributes(SubscriptionArn=id)["Attributes"],
    "AWS::SNS::Topic": lambda aws, id, p: aws.sns.get_topic_attributes(TopicArn=id)["Attributes"],
    "AWS::SNS::TopicPolicy": lambda aws, id, p: [
        one(statement for statement in json.loads(
            aws.sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"])["Statement"]
            if statement.get("Sid") == "Budget")
        for topic in p["Topics"]],
}
# What the service must say besides being there: property of the template -> its answer.
SAME = {
    "AWS::EC2::Instance": {"InstanceType": lambda seen: seen["InstanceType"]},
    "AWS::EC2::Subnet": {"CidrBlock": lambda seen: seen["CidrBlock"]},
    "AWS::EC2::VPC": {"CidrBlock": lambda seen: seen["CidrBlock"]},
    "AWS::EC2::Volume": {
        "Size": lambda seen: seen["Size"], "Encrypted": lambda seen: seen["Encrypted"],
        "VolumeType": lambda seen: seen["VolumeType"],
    },
    "AWS::CloudWatch::Alarm": {
        "Threshold": lambda seen: seen["Threshold"], "EvaluationPeriods": lambda seen: seen["EvaluationPeriods"],
        "ComparisonOperator": lambda seen: seen["ComparisonOperator"],
    },
    "AWS::ElasticLoadBalancingV2::TargetGroup": {
        "HealthCheckPath": lambda seen: seen["HealthCheckPath"], "Port": lambda seen: seen["Port"],
    },
    "AWS::ElasticLoadBalancingV2::Listener": {"Port": lambda seen: seen["Port"]},
    "AWS::Events::Rule": {"ScheduleExpression": lambda seen: seen["ScheduleExpression"]},
    "AWS::Lambda::Function": {"Handler": lambda seen: seen["Handler"], "Runtime": lambda seen: seen["Runtime"]},
    "AWS::Logs::LogGroup": {"RetentionInDays": lambda seen: seen["retentionInDays"]},
}


def start_endpoint():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("local_aws.py"), str(port)],
        stdout=subprocess.DEVNULL, stderr=open(os.environ.get("DEPLOY_LOG", os.devnull), "a"),
    )
    deadline = time.monotonic() + 180
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server, Aws(f"http://127.0.0.1:{port}")
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                sys.exit("deploy: the endpoint does not start")
            time.sleep(0.1)


def bootstrap(aws):
    """What `cdk bootstrap` leaves and the templates refer to, a zone, and a certificate; returns
    what stands in the templates for the latter two, with their names here."""
    aws.s3.create_bucket(
        Bucket=f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    aws.s3.create_bucket(Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": REGION})
    aws.ssm.put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    zone = aws.route53.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"]
    return {
        "Z0123456789ABCDEFGHIJ": zone.rsplit("/", 1)[-1],
        f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/1": aws.acm.request_certificate(DomainName="api.example.com")[
            "CertificateArn"
        ],
    }


def publish_assets(aws, assembly):
    """Function code, as `cdk-assets` packs it."""
    manifest = json.loads(one(assembly.glob("*.assets.json")).read_text())
    for asset in manifest["files"].values():
        if asset["source"]["packaging"] != "zip":
            continue
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            folder = assembly / asset["source"]["path"]
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder))
        for place in asset["destinations"].values():
            key = place["objectKey"]
            aws.s3.put_object(
                Bucket=f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}", Key=key, Body=packed.getvalue()
            )


def change(aws, stack, kind, template):
    """Makes and executes a change set; returns what it says it will do, by logical id."""
    name = f"{kind.lower()}-{len(template)}"
    aws.cloudformation.create_change_set(
        StackName=stack, ChangeSetName=name, ChangeSetType=kind, TemplateBody=template, Capabilities=["CAPABILITY_IAM"]
    )
    described = aws.cloudformation.describe_change_set(StackName=stack, ChangeSetName=name)
    aws.cloudformation.execute_change_set(StackName=stack, ChangeSetName=name)
    status = aws.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
    if status != f"{kind}_COMPLETE":
        problems.append(f"{stack}: {status}")
    return {
        one["ResourceChange"]["LogicalResourceId"]: one["ResourceChange"]["Action"] for one in described["Changes"]
    }


def resolve(value, ids):
    """A property with references replaced by physical ids, where these are what they stand for."""
    if isinstance(value, list):
        return [resolve(inner, ids) for inner in value]
    if not isinstance(value, dict):
        return value
    if list(value) == ["Ref"]:
        return ids.get(value["Ref"], value)
    if list(value) == ["Fn::GetAtt"]:
        logical, attribute = value["Fn::GetAtt"]
        if attribute in ("GroupId", "Arn", "VolumeId", "InstanceId"):
            return ids.get(logical, value)
        return value
    return {key: resolve(inner, ids) for key, inner in value.items()}


def is_made(aws, kind, logical, made, resource):
    """Whether moto makes what CANNOT says it does not."""
    if kind == "Custom::VpcRestrictDefaultSG":
        # It is there to take the rules from the default group.
        vpc = made[resource["Properties"]["DefaultSecurityGroupId"]["Fn::GetAtt"][0]]
        group = one(aws.ec2.describe_security_groups(Filters=[
            {"Name": "group-name", "Values": ["default"]}, {"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"])
        return not group["IpPermissionsEgress"]
    return bool(made.get(logical))


def account(aws, stack, template):
    """Looks for each resource of the template; returns physical ids."""
    resources = json.loads(template)["Resources"]
    made = {
        found.get("LogicalResourceId"): found.get("PhysicalResourceId")
        for found in aws.cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
    }
    seen, absent = 0, {}
    for logical, resource in resources.items():
        kind = resource["Type"]
        if kind in CANNOT:
            absent[kind] = absent.get(kind, 0) + 1
            if is_made(aws, kind, logical, made, resource):
                problems.append(f"{stack}: moto does make {kind}: take it from CANNOT")
            continue
        if kind not in SEEN:
            problems.append(f"{stack}: {kind} {logical}: SEEN does not say how to look for it")
            continue
        properties = resolve(resource.get("Properties", {}), made)
        try:
            found = SEEN[kind](aws, made[logical], properties)
        except (BotoCoreError, ClientError, LookupError) as error:
            problems.append(f"{stack}: {kind} {logical} is not there: {type(error).__name__} {error}")
            continue
        seen += 1
        for name, said in SAME.get(kind, {}).items():
            if name in properties and not isinstance(properties[name], dict) and said(found) != properties[name]:
                problems.append(f"{stack}: {logical}.{name} is {said(found)!r}, not {properties[name]!r}")
    table = "".join(f"; {count} {kind}: {CANNOT[kind]}" for kind, count in sorted(absent.items()))
    print(f"deploy: {stack}: {seen} of {len(resources)} resources seen{table}")
    return made


def differences(before, after):
    """What a change set from one template to another must say."""
    old, new = json.loads(before)["Resources"], json.loads(after)["Resources"]
    return (
        {name: "Add" for name in new.keys() - old.keys()}
        | {name: "Remove" for name in old.keys() - new.keys()}
        | {name: "Modify" for name in new.keys() & old.keys() if old[name] != new[name]}
    )


def delete(aws, stack, template, made):
    resources = json.loads(template)["Resources"]
    aws.cloudformation.delete_stack(StackName=stack)
    listed = aws.cloudformation.list_stacks(StackStatusFilter=["DELETE_COMPLETE"])["StackSummaries"]
    if stack not in [found["StackName"] for found in listed]:
        problems.append(f"{stack}: not deleted")
    for logical, resource in resources.items():
        kind = resource["Type"]
        if kind in CANNOT or not made.get(logical):
            continue
        try:
            SEEN[kind](aws, made[logical], resolve(resource.get("Properties", {}), made))
            stays = True
        except (BotoCoreError, ClientError, LookupError):
            stays = False
        if stays != (resource.get("DeletionPolicy") in ("Retain", "RetainExceptOnCreate")):
            problems.append(f"{stack}: {kind} {logical} {'is left' if stays else 'is gone'} after the deletion")


def template_of(assembly, names):
    path = one(Path(assembly).glob("*.template.json"))
    text = path.read_text()
    for placeholder, name in names.items():
        text = text.replace(placeholder, name)
    return path.name.removesuffix(".template.json"), text


def main():
    folder = Path(sys.argv[1])
    # The environment and what it is changed to.
    scenes = [("dev", "dev-next"), ("staging", None), ("production", "production-cutover")]
    used = set()
    for first, second in scenes:
        server, aws = start_endpoint()
        try:
            names = bootstrap(aws)
            publish_assets(aws, folder / first)
            stack, template = template_of(folder / first, names)
            used |= {resource["Type"] for resource in json.loads(template)["Resources"].values()}
            change(aws, stack, "CREATE", template)
            made = account(aws, stack, template)
            if second is not None:
                publish_assets(aws, folder / second)
                _, changed = template_of(folder / second, names)
                said = change(aws, stack, "UPDATE", changed)
                expected = differences(template, changed)
                if said != expected:
                    problems.append(f"{stack}: the change set says {said}, but {expected} differ")
                print(f"deploy: {stack} changed to {second}: {len(said)} changes")
                template = changed
                made = account(aws, stack, template)
            delete(aws, stack, template, made)
        finally:
            server.terminate()
            server.wait()
    for kind in sorted(CANNOT.keys() - used):
        problems.append(f"{kind} is in CANNOT, but in no template")
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
