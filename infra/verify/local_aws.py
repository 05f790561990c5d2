#!/usr/bin/env python3
"""A local AWS endpoint: moto's server.

    local_aws.py PORT

moto's CloudFormation passes over types that it does not know, without a word, and over properties
and deletions of others. Where moto has the service itself, this goes through the service's own
calls here, with what the template says: botocore judges the arguments, and what was made can be
asked for.
"""

import base64
import json
import sys
import threading
import traceback

import boto3
from botocore.exceptions import ClientError
from moto.budgets.responses import BudgetsResponse
from moto.cloudformation.parsing import resource_class_from_type
from moto.core.common_models import CloudFormationModel
from moto.core.exceptions import ServiceException
from moto.core.responses import BaseResponse
from moto.ec2.exceptions import InvalidUserDataError
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.models.instances import Instance
from moto.ec2.responses import instances
from moto.ec2.responses.monitoring import Monitoring
from moto.elbv2.models import ELBv2Backend, FakeLoadBalancer, FakeTargetGroup
from moto.kms.models import KmsBackend
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.s3.models import FakeBucket
from moto.utilities.tagging_service import TaggingService
from werkzeug.exceptions import HTTPException

PORT = int(sys.argv[1])


def client(service, region):
    return boto3.client(
        service, endpoint_url=f"http://127.0.0.1:{PORT}", region_name=region,
        aws_access_key_id="test", aws_secret_access_key="test",
    )


def bridge(cfn_type, create, delete=None, name_property=""):
    """Creates resources of a type by `create(name, properties, region)`, which returns the
    physical id, and deletes them by `delete(physical id, region)`."""

    class Bridged(CloudFormationModel):
        # moto reads the name of the service from here.
        __module__ = "moto.cloudformation.bridged"

        def __init__(self, physical_id):
            self.physical_id = physical_id

        @property
        def physical_resource_id(self):
            return self.physical_id

        @staticmethod
        def cloudformation_name_type():
            return name_property

        @staticmethod
        def cloudformation_type():
            return cfn_type

        @classmethod
        def has_cfn_attr(cls, attr):
            return attr == "Arn"

        def get_cfn_attribute(self, attribute_name):
            return self.physical_id

        @classmethod
        def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **_):
            return cls(create(resource_name, cloudformation_json["Properties"], region_name))

        @classmethod
        def update_from_cloudformation_json(
            cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
        ):
            return cls(create(new_resource_name, cloudformation_json["Properties"], region_name))

        @classmethod
        def delete_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name):
            if delete:
                delete(resource_name, region_name)

    Bridged.__name__ = cfn_type.replace(":", "")
    # moto finds models by walking subclasses; this keeps them alive.
    globals()[Bridged.__name__] = Bridged


def certificate(_name, properties, region):
    asked = {key: properties[key] for key in ("DomainName", "ValidationMethod", "SubjectAlternativeNames") if key in properties}
    return client("acm", region).request_certificate(**asked)["CertificateArn"]


NUMBERS = {"Period": int, "EvaluationPeriods": int, "DatapointsToAlarm": int, "Threshold": float}


def alarm(name, properties, region):
    def typed(value):
        if isinstance(value, dict):
            return {
                key: NUMBERS[key](inner) if key in NUMBERS else inner in (True, "true") if key == "ReturnData" else typed(inner)
                for key, inner in value.items()
            }
        return [typed(inner) for inner in value] if isinstance(value, list) else value

    asked = typed(properties)
    asked.setdefault("AlarmName", name)
    client("cloudwatch", region).put_metric_alarm(**asked)
    return asked["AlarmName"]


def delete_alarm(name, region):
    client("cloudwatch", region).delete_alarms(AlarmNames=[name])


def bucket_policy(_name, properties, region):
    client("s3", region).put_bucket_policy(Bucket=properties["Bucket"], Policy=json.dumps(properties["PolicyDocument"]))
    return properties["Bucket"]


def delete_bucket_policy(bucket, region):
    client("s3", region).delete_bucket_policy(Bucket=bucket)


def topic_policy(name, properties, region):
    for topic in properties["Topics"]:
        client("sns", region).set_topic_attributes(
            TopicArn=topic, AttributeName="Policy", AttributeValue=json.dumps(properties["PolicyDocument"])
        )
    return name


def subscription(_name, properties, region):
    return client("sns", region).subscribe(
        TopicArn=properties["TopicArn"], Protocol=properties["Protocol"], Endpoint=properties["Endpoint"],
        ReturnSubscriptionArn=True,
    )["SubscriptionArn"]


def egress(name, properties, region):
    rule = {"IpProtocol": str(properties["IpProtocol"])}
    for key in ("FromPort", "ToPort"):
        rule[key] = int(properties[key])
    if "DestinationSecurityGroupId" in properties:
        rule["UserIdGroupPairs"] = [{"GroupId": properties["DestinationSecurityGroupId"]}]
    else:
        rule["IpRanges"] = [{"CidrIp": properties["CidrIp"]}]
    client("ec2", region).authorize_security_group_egress(GroupId=properties["GroupId"], IpPermissions=[rule])
    return name


def budget(_name, properties, region):
    asked = json.loads(json.dumps(properties["Budget"]))
    asked["BudgetLimit"]["Amount"] = str(asked["BudgetLimit"]["Amount"])
    told = [
        {
            "Notification": one["Notification"] | {"Threshold": float(one["Notification"]["Threshold"])},
            "Subscribers": one["Subscribers"],
        }
        for one in properties["NotificationsWithSubscribers"]
    ]
    client("budgets", "us-east-1").create_budget(AccountId="123456789012", Budget=asked, NotificationsWithSubscribers=told)
    return asked["BudgetName"]


def delete_budget(name, _region):
    client("budgets", "us-east-1").delete_budget(AccountId="123456789012", BudgetName=name)


def association(_name, properties, region):
    return client("ec2", region).associate_route_table(
        RouteTableId=properties["RouteTableId"], SubnetId=properties["SubnetId"]
    )["AssociationId"]


def attachment(_name, properties, region):
    gateway, vpc = properties["InternetGatewayId"], properties["VpcId"]
    client("ec2", region).attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    return f"{gateway}|{vpc}"


def detach(both, region):
    gateway, vpc = both.split("|")
    client("ec2", region).detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)


def delete_route_table(aws, id):
    endpoints = aws("ec2").describe_vpc_endpoints()["VpcEndpoints"]
    if any(id in one["RouteTableIds"] and one["State"] != "deleted" for one in endpoints):
        # moto tries again when the others are gone.
        raise RuntimeError("an endpoint has routes here")
    aws("ec2").delete_route_table(RouteTableId=id)


# What moto makes by CloudFormation and does not delete with the stack: by physical id.
DELETES = {
    "AWS::EC2::EIP": lambda aws, id: aws("ec2").release_address(PublicIp=id),
    "AWS::EC2::FlowLog": lambda aws, id: aws("ec2").delete_flow_logs(FlowLogIds=[id]),
    "AWS::EC2::InternetGateway": lambda aws, id: aws("ec2").delete_internet_gateway(InternetGatewayId=id),
    "AWS::EC2::LaunchTemplate": lambda aws, id: aws("ec2").delete_launch_template(LaunchTemplateId=id),
    "AWS::EC2::RouteTable": delete_route_table,
    "AWS::EC2::VPCEndpoint": lambda aws, id: aws("ec2").delete_vpc_endpoints(VpcEndpointIds=[id]),
    "AWS::ElasticLoadBalancingV2::Listener": lambda aws, id: aws("elbv2").delete_listener(ListenerArn=id),
    "AWS::ElasticLoadBalancingV2::ListenerRule": lambda aws, id: aws("elbv2").delete_rule(RuleArn=id),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": lambda aws, id: aws("elbv2").delete_load_balancer(LoadBalancerArn=id),
    "AWS::ElasticLoadBalancingV2::TargetGroup": lambda aws, id: aws("elbv2").delete_target_group(TargetGroupArn=id),
    "AWS::Logs::LogGroup": lambda aws, id: aws("logs").delete_log_group(logGroupName=id),
}


def deleted_by_service(cfn_type, delete):
    def by_service(cls, resource_name, cloudformation_json, account_id, region_name):
        try:
            delete(lambda service: client(service, region_name), resource_name)
        except ClientError as error:
            # Listeners go with their balancer.
            if error.response["Error"]["Code"] not in ("ListenerNotFound", "RuleNotFound"):
                raise

    resource_class_from_type(cfn_type).delete_from_cloudformation_json = classmethod(by_service)


def patch_balancers():
    """moto makes target groups and balancers, but does not tell all of their attributes."""

    def of_group(group, name):
        return {
            "TargetGroupFullName": group.arn.split(":")[-1],
            "TargetGroupName": group.name,
            "TargetGroupArn": group.arn,
        }[name]

    FakeTargetGroup.get_cfn_attribute = of_group
    FakeTargetGroup.has_cfn_attr = classmethod(lambda cls, attr: attr.startswith("TargetGroup"))
    known = FakeLoadBalancer.get_cfn_attribute
    more = {
        "CanonicalHostedZoneID": lambda balancer: "Z3AADJGX6KTTL2",
        "LoadBalancerFullName": lambda balancer: balancer.arn.split(":loadbalancer/")[-1],
    }
    FakeLoadBalancer.get_cfn_attribute = lambda balancer, name: more[name](balancer) if name in more else known(balancer, name)


    def actions(backend, properties):
        """All kinds, with weights; moto's own takes a single target group for granted."""
        return [dict(action) for action in properties["DefaultActions"]]

    ELBv2Backend.convert_and_validate_properties = actions


def patch_volumes_and_buckets():
    """moto's CloudFormation reads few properties of them; their own calls take all."""

    def volume(cls, resource_name, cloudformation_json, account_id, region_name, **_):
        asked = {
            key: value for key, value in cloudformation_json["Properties"].items()
            if key in ("AvailabilityZone", "Size", "VolumeType", "Encrypted", "KmsKeyId", "SnapshotId", "Iops", "Throughput")
        }
        asked["Size"] = int(asked["Size"])
        tags = cloudformation_json["Properties"].get("Tags", [])
        made = client("ec2", region_name).create_volume(
            **asked, TagSpecifications=[{"ResourceType": "volume", "Tags": tags}]
        )
        return ec2_backends[account_id][region_name].volumes[made["VolumeId"]]

    Volume.create_from_cloudformation_json = classmethod(volume)
    known = FakeBucket.create_from_cloudformation_json.__func__

    def bucket(cls, resource_name, cloudformation_json, account_id, region_name, **named):
        made = known(cls, resource_name, cloudformation_json, account_id, region_name, **named)
        properties, s3 = cloudformation_json["Properties"], client("s3", region_name)
        if "VersioningConfiguration" in properties:
            s3.put_bucket_versioning(Bucket=made.name, VersioningConfiguration=properties["VersioningConfiguration"])
        if "PublicAccessBlockConfiguration" in properties:
            s3.put_public_access_block(
                Bucket=made.name,
                PublicAccessBlockConfiguration={
                    key: value in (True, "true") for key, value in properties["PublicAccessBlockConfiguration"].items()
                },
            )
        rules = [
            {
                "Status": rule["Status"],
                "Filter": {"Prefix": rule.get("Prefix", "")},
                "AbortIncompleteMultipartUpload": {
                    "DaysAfterInitiation": int(rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"])
                },
                "NoncurrentVersionExpiration": {"NoncurrentDays": int(rule["NoncurrentVersionExpiration"]["NoncurrentDays"])},
                "Transitions": [
                    {"Days": int(one["TransitionInDays"]), "StorageClass": one["StorageClass"]} for one in rule["Transitions"]
                ],
            }
            for rule in properties["LifecycleConfiguration"]["Rules"]
        ]
        s3.put_bucket_lifecycle_configuration(Bucket=made.name, LifecycleConfiguration={"Rules": rules})
        return made

    FakeBucket.create_from_cloudformation_json = classmethod(bucket)


def patch_tags():
    """Templates name a tag's parts Key and Value everywhere, services in their own words."""
    known = TaggingService.tag_resource

    def tag_resource(tagger, arn, tags):
        own = [
            {tagger.key_name: tag["Key"], tagger.value_name: tag["Value"]} if tagger.key_name not in tag and "Key" in tag else tag
            for tag in tags or []
        ]
        return known(tagger, arn, own)

    TaggingService.tag_resource = tag_resource


def patch_keys():
    """The policy of a key arrives as the template has it; the key's own calls read text."""
    known = KmsBackend.create_key

    def create_key(backend, policy, *args, **named):
        return known(backend, json.dumps(policy) if isinstance(policy, dict) else policy, *args, **named)

    KmsBackend.create_key = create_key


def patch_instances():
    """Changes the user data of an instance, where moto would forget the instance. AWS stops and
    starts it for that."""

    def update(cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name):
        client("ec2", region_name).modify_instance_attribute(
            InstanceId=original_resource.id,
            UserData={"Value": cloudformation_json["Properties"]["UserData"].encode()},
        )
        return original_resource

    Instance.update_from_cloudformation_json = classmethod(update)


def add_calls():
    """Calls that moto leaves out of services that it has; Terraform's provider makes them."""

    def monitor(response):
        items = ""
        for name in response._get_param("InstanceIds", []):
            response.ec2_backend.get_instance(name).monitoring_state = "enabled"
            items += f"<item><instanceId>{name}</instanceId><monitoring><state>enabled</state></monitoring></item>"
        return f"<MonitorInstancesResponse><requestId>1</requestId><instancesSet>{items}</instancesSet></MonitorInstancesResponse>"

    Monitoring.monitor_instances = monitor

    # A change of user data arrives decoded, and moto decodes it again; packed ones do not survive that.
    parse = instances.parse_user_data

    def parse_user_data(value):
        try:
            return parse(value)
        except InvalidUserDataError:
            return parse(base64.b64encode(value))

    instances.parse_user_data = parse_user_data

    def subscribers(response):
        budget = response.backend.budgets[response._get_param("AccountId")][response._get_param("BudgetName")]
        asked = response._get_param("Notification")
        same = ("NotificationType", "ComparisonOperator", "Threshold")
        for notification in budget.notifications:
            if all(notification.details[key] == asked[key] for key in same):
                return json.dumps({"Subscribers": notification.subscribers})
        raise ServiceException("no such notification")

    BudgetsResponse.describe_subscribers_for_notification = subscribers
    tags = {}
    create_budget = BudgetsResponse.create_budget

    def create_with_tags(response):
        tags[response._get_param("Budget")["BudgetName"]] = response._get_param("ResourceTags", [])
        return create_budget(response)

    BudgetsResponse.create_budget = create_with_tags
    BudgetsResponse.list_tags_for_resource = lambda response: json.dumps(
        {"ResourceTags": tags[response._get_param("ResourceARN").rsplit("/", 1)[-1]]}
    )


def tell_failures():
    """What moto fails at goes to standard error, and is not only answered with 500."""
    known = BaseResponse.call_action

    def call_action(response):
        try:
            return known(response)
        except (ServiceException, HTTPException):
            raise
        except Exception:
            traceback.print_exc()
            raise

    BaseResponse.call_action = call_action


def main():
    bridge(
        "AWS::CertificateManager::Certificate", certificate,
        lambda arn, region: client("acm", region).delete_certificate(CertificateArn=arn),
    )
    bridge("AWS::CloudWatch::Alarm", alarm, delete_alarm, "AlarmName")
    bridge("AWS::S3::BucketPolicy", bucket_policy, delete_bucket_policy)
    bridge("AWS::SNS::TopicPolicy", topic_policy)
    bridge(
        "AWS::SNS::Subscription", subscription,
        lambda arn, region: client("sns", region).unsubscribe(SubscriptionArn=arn),
    )
    bridge("AWS::EC2::SecurityGroupEgress", egress)
    bridge("AWS::Budgets::Budget", budget, delete_budget)
    bridge(
        "AWS::EC2::SubnetRouteTableAssociation", association,
        lambda id, region: client("ec2", region).disassociate_route_table(AssociationId=id),
    )
    bridge("AWS::EC2::VPCGatewayAttachment", attachment, detach)
    for cfn_type, delete in DELETES.items():
        deleted_by_service(cfn_type, delete)
    patch_balancers()
    patch_volumes_and_buckets()
    patch_tags()
    patch_keys()
    patch_instances()
    add_calls()
    tell_failures()
    ThreadedMotoServer("127.0.0.1", PORT).start()
    threading.Event().wait()


main()
