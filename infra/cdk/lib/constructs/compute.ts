import { readFileSync } from "node:fs";
import { Names, Stack, Validations } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as iam from "aws-cdk-lib/aws-iam";
import * as logs from "aws-cdk-lib/aws-logs";
import * as s3 from "aws-cdk-lib/aws-s3";
import { Construct } from "constructs";
import { type Environment, publicPort, type Slot } from "../config/environments.js";
import type { Network } from "./network.js";
import type { Storage } from "./storage.js";

export interface ComputeProps {
  readonly environment: Environment;
  readonly slot: Slot;
  readonly network: Network;
  readonly storage: Storage;
  /** The slot's data. */
  readonly volume: ec2.Volume;
  /** Bucket with the artifacts. */
  readonly artifacts: s3.IBucket;
  /** Version of pulse-node to run. */
  readonly version: string;
  /** Log group of the instance; its name starts with /pulse/. */
  readonly logGroup: logs.ILogGroup;
  /** Another Esplora that answers what this node does not know yet. */
  readonly fallback?: string;
}

/** The node of one slot: instance and role, with its volume attached. */
export class Compute extends Construct {
  readonly instance: ec2.Instance;

  constructor(scope: Construct, id: string, props: ComputeProps) {
    super(scope, id);
    if (!/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/.test(props.version)) {
      throw new Error(`${props.version} is no version`);
    }
    if (props.fallback !== undefined && !/^https:\/\/[^\s'"\\]+$/.test(props.fallback)) {
      throw new Error(`${props.fallback} is no https URL`);
    }
    const { environment, network, storage } = props;
    this.instance = new ec2.Instance(this, "Node", {
      vpc: network.vpc,
      vpcSubnets: { subnetType: ec2.SubnetType.PUBLIC },
      availabilityZone: props.volume.availabilityZone,
      instanceType: new ec2.InstanceType(environment.instanceType),
      machineImage: ec2.MachineImage.latestAmazonLinux2023({ cachedInContext: false }),
      securityGroup: network.nodeGroup,
      role: this.role(props),
      userData: this.userData(props),
      detailedMonitoring: true,
      ebsOptimized: true,
      // A burst that lasts costs money without end; the CPU alarm tells sooner.
      creditSpecification: ec2.CpuCredits.STANDARD,
      blockDevices: [
        {
          deviceName: "/dev/xvda",
          volume: ec2.BlockDeviceVolume.ebs(20, {
            encrypted: true,
            kmsKey: storage.key,
            volumeType: ec2.EbsDeviceVolumeType.GP3,
          }),
        },
      ],
    });
    Validations.of(this.instance).acknowledge({
      id: "AwsSolutions-EC29",
      reason: "The machine holds nothing: its data lies on a volume that outlives the stack",
    });
    const template = new ec2.CfnLaunchTemplate(this, "Template", {
      launchTemplateData: {
        // Only IMDSv2, and not through a container's hop.
        metadataOptions: { httpTokens: "required", httpPutResponseHopLimit: 1 },
        instanceMarketOptions: environment.spotMaxPrice === null ? undefined : {
          marketType: "spot",
          spotOptions: {
            maxPrice: environment.spotMaxPrice,
            spotInstanceType: "persistent",
            instanceInterruptionBehavior: "stop",
          },
        },
      },
    });
    this.instance.instance.launchTemplate = {
      launchTemplateId: template.ref,
      version: template.attrLatestVersionNumber,
    };
    new ec2.CfnVolumeAttachment(this, "Attachment", {
      device: "/dev/sdf",
      instanceId: this.instance.instanceId,
      volumeId: props.volume.volumeId,
    });
  }

  private role({ artifacts, environment, logGroup, storage }: ComputeProps): iam.Role {
    const role = new iam.Role(this, "Role", {
      assumedBy: new iam.ServicePrincipal("ec2.amazonaws.com"),
      managedPolicies: [
        // A shell through SSM needs no open port and no key.
        iam.ManagedPolicy.fromAwsManagedPolicyName("AmazonSSMManagedInstanceCore"),
      ],
    });
    artifacts.grantRead(role, "nodes/*");
    storage.archive.grantReadWrite(role);
    logGroup.grantWrite(role);
    role.addToPolicy(
      new iam.PolicyStatement({
        actions: ["ssm:GetParametersByPath"],
        resources: [
          Stack.of(this).formatArn({ service: "ssm", resource: "parameter", resourceName: `pulse-${environment.name}` }),
        ],
      }),
    );
    role.addToPolicy(
      new iam.PolicyStatement({
        actions: ["cloudwatch:PutMetricData"],
        resources: ["*"],
        conditions: { StringEquals: { "cloudwatch:namespace": "Pulse" } },
      }),
    );
    const archive = Stack.of(this).getLogicalId(storage.archive.node.defaultChild as s3.CfnBucket);
    const wildcards: Record<string, string> = {
      "Resource::*": "PutMetricData knows no resources; it is bound to the namespace",
      "Action::s3:GetObject*": "Objects and their versions, of two buckets only",
      "Action::s3:GetBucket*": "What listing needs, of two buckets only",
      "Action::s3:List*": "What listing needs, of two buckets only",
      "Action::s3:DeleteObject*": "The node prunes its own snapshots",
      "Action::s3:Abort*": "Uploads that end early are taken back",
      "Action::kms:GenerateDataKey*": "With and without plain text, of one key",
      "Action::kms:ReEncrypt*": "From and to, of one key",
      [`Resource::<${archive}.Arn>/*`]: "All objects of the archive are the node's",
      [`Resource::arn:<AWS::Partition>:s3:::${artifacts.bucketName}/nodes/*`]: "Any version may be installed",
    };
    Validations.of(role).acknowledge(
      {
        id: "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/AmazonSSMManagedInstanceCore]",
        reason: "What the SSM agent needs is AWS's to say; it changes with the agent",
      },
      ...Object.entries(wildcards).map(([found, reason]) => ({ id: `AwsSolutions-IAM5[${found}]`, reason })),
    );
    return role;
  }

  private userData(props: ComputeProps): ec2.UserData {
    const { environment, storage } = props;
    const settings: Record<string, string> = {
      SETUP_ARTIFACTS: props.artifacts.bucketName,
      SETUP_VERSION: props.version,
      SETUP_NETWORK: environment.network,
      SETUP_HTTP_PORT: String(publicPort),
      SETUP_DATA_DEVICE: props.volume.volumeId,
      SETUP_SNAPSHOTS: `s3://${storage.archive.bucketName}/${environment.network}`,
      // Daily ones are made of the volume.
      SETUP_SNAPSHOTS_CALENDAR: "Sun *-*-* 03:00:00 UTC",
      // A quarter: what lies in Glacier is paid for 90 days at least.
      SETUP_SNAPSHOTS_KEPT: "13",
      SETUP_SECRETS: `/pulse-${environment.name}`,
      SETUP_LOG_GROUP: props.logGroup.logGroupName,
      SETUP_FALLBACK: props.fallback ?? "",
    };
    const script = ec2.UserData.forLinux();
    script.addCommands(
      ...Object.entries(settings).map(([key, value]) => `export ${key}='${value}'`),
      readFileSync(new URL("../../../instance/user-data.sh", import.meta.url), "utf8"),
    );
    // At every boot: another version is new user data, for which the instance is stopped and
    // started, not replaced.
    const always = ec2.UserData.custom("#cloud-config\ncloud_final_modules:\n- [scripts-user, always]\n");
    const parts = new ec2.MultipartUserData({ partsSeparator: `=${Names.nodeUniqueId(this.node)}=` });
    parts.addPart(ec2.MultipartBody.fromUserData(always, 'text/cloud-config; charset="utf-8"'));
    parts.addPart(ec2.MultipartBody.fromUserData(script, 'text/x-shellscript; charset="utf-8"'));
    return parts;
  }
}
