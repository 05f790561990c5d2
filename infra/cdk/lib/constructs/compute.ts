import { readFileSync } from "node:fs";
import { CfnOutput, Stack } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as iam from "aws-cdk-lib/aws-iam";
import * as logs from "aws-cdk-lib/aws-logs";
import * as s3 from "aws-cdk-lib/aws-s3";
import { Construct } from "constructs";
import { type Environment, ports, publicPort } from "../config/environments.js";
import type { Network } from "./network.js";
import type { Storage } from "./storage.js";

export interface ComputeProps {
  readonly environment: Environment;
  readonly network: Network;
  readonly storage: Storage;
  /** Bucket with the artifacts. */
  readonly artifacts: s3.IBucket;
  /** Version of pulse-node to run. */
  readonly version: string;
  /** Log group of the instance; its name starts with /pulse/. */
  readonly logGroup: logs.ILogGroup;
}

/** The one node: instance, volume, address. */
export class Compute extends Construct {
  readonly instance: ec2.Instance;
  readonly address: ec2.CfnEIP;

  constructor(scope: Construct, id: string, props: ComputeProps) {
    super(scope, id);
    if (!/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/.test(props.version)) {
      throw new Error(`${props.version} is no version`);
    }
    const { environment, network, storage } = props;
    const role = new iam.Role(this, "Role", {
      assumedBy: new iam.ServicePrincipal("ec2.amazonaws.com"),
      managedPolicies: [
        // A shell through SSM needs no open port and no key.
        iam.ManagedPolicy.fromAwsManagedPolicyName("AmazonSSMManagedInstanceCore"),
      ],
    });
    props.artifacts.grantRead(role, "nodes/*");
    storage.archive.grantReadWrite(role);
    props.logGroup.grantWrite(role);
    const secrets = `/pulse-${environment.name}`;
    const stack = Stack.of(this);
    role.addToPolicy(
      new iam.PolicyStatement({
        actions: ["ssm:GetParametersByPath"],
        resources: [stack.formatArn({ service: "ssm", resource: "parameter", resourceName: secrets.slice(1) })],
      }),
    );
    role.addToPolicy(
      new iam.PolicyStatement({
        actions: ["cloudwatch:PutMetricData"],
        resources: ["*"],
        conditions: { StringEquals: { "cloudwatch:namespace": "Pulse" } },
      }),
    );

    const settings: Record<string, string> = {
      SETUP_ARTIFACTS: props.artifacts.bucketName,
      SETUP_VERSION: props.version,
      SETUP_NETWORK: environment.network,
      SETUP_DATA_DEVICE: storage.volume.volumeId,
      SETUP_SNAPSHOTS: `s3://${storage.archive.bucketName}/${environment.network}`,
      SETUP_SECRETS: secrets,
      SETUP_LOG_GROUP: props.logGroup.logGroupName,
    };
    const userData = ec2.UserData.forLinux();
    userData.addCommands(...Object.entries(settings).map(([key, value]) => `export ${key}='${value}'`));
    if (!environment.balancer) {
      // The public port leads to the node's own.
      userData.addCommands(
        `iptables -t nat -A PREROUTING -p tcp --dport ${publicPort} -j REDIRECT --to-port ${ports.http}`,
      );
    }
    userData.addCommands(
      readFileSync(new URL("../../../instance/user-data.sh", import.meta.url), "utf8"),
    );

    this.instance = new ec2.Instance(this, "Node", {
      vpc: network.vpc,
      vpcSubnets: { subnetType: ec2.SubnetType.PUBLIC },
      availabilityZone: storage.volume.availabilityZone,
      instanceType: new ec2.InstanceType(environment.instanceType),
      machineImage: ec2.MachineImage.latestAmazonLinux2023(),
      securityGroup: network.nodeGroup,
      role,
      userData,
      detailedMonitoring: true,
      ebsOptimized: true,
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
      volumeId: storage.volume.volumeId,
    });
    this.address = new ec2.CfnEIP(this, "Address", {
      domain: "vpc",
      instanceId: this.instance.instanceId,
    });
    new CfnOutput(this, "PublicAddress", { value: this.address.ref });
  }
}
