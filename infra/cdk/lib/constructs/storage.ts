import { ArnFormat, Duration, RemovalPolicy, Size, Stack, Tags, Validations } from "aws-cdk-lib";
import * as dlm from "aws-cdk-lib/aws-dlm";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as iam from "aws-cdk-lib/aws-iam";
import * as kms from "aws-cdk-lib/aws-kms";
import * as s3 from "aws-cdk-lib/aws-s3";
import { Construct } from "constructs";
import type { Environment, Slot } from "../config/environments.js";

export interface StorageProps {
  readonly environment: Environment;
  /** Start of the names of log groups that the key encrypts. */
  readonly logPrefix: string;
}

/** The key, the bucket of the weekly archive, and data volumes with daily snapshots. */
export class Storage extends Construct {
  readonly key: kms.Key;
  readonly archive: s3.Bucket;
  private readonly props: StorageProps;

  constructor(scope: Construct, id: string, props: StorageProps) {
    super(scope, id);
    this.props = props;
    this.key = this.makeKey();
    this.archive = new s3.Bucket(this, "Archive", {
      encryption: s3.BucketEncryption.KMS,
      encryptionKey: this.key,
      bucketKeyEnabled: true,
      enforceSSL: true,
      versioned: true,
      blockPublicAccess: s3.BlockPublicAccess.BLOCK_ALL,
      removalPolicy: RemovalPolicy.RETAIN,
      lifecycleRules: [
        {
          abortIncompleteMultipartUploadAfter: Duration.days(2),
          // What the node has pruned goes for good.
          noncurrentVersionExpiration: Duration.days(1),
          transitions: [
            { storageClass: s3.StorageClass.GLACIER, transitionAfter: Duration.days(30) },
          ],
        },
      ],
    });
    Validations.of(this.archive).acknowledge({
      id: "AwsSolutions-S1",
      reason: "Only the node's role writes here; its calls stand in CloudTrail",
    });
    if (props.environment.keepSnapshotsDays > 0) {
      this.snapshots(props.environment.keepSnapshotsDays);
    }
  }

  /** The data volume of a slot: empty, or made of a snapshot. */
  volume(slot: Slot, zone: string, snapshotId?: string): ec2.Volume {
    const volume = new ec2.Volume(this, slot === "blue" ? "Blue" : "Green", {
      availabilityZone: zone,
      size: Size.gibibytes(this.props.environment.volumeGb),
      volumeType: ec2.EbsDeviceVolumeType.GP3,
      encrypted: true,
      encryptionKey: this.key,
      snapshotId,
      // A chain takes long to load again.
      removalPolicy: RemovalPolicy.RETAIN,
    });
    Tags.of(volume).add("backup", this.backupTag);
    return volume;
  }

  private get backupTag() {
    return `pulse-${this.props.environment.name}`;
  }

  private makeKey(): kms.Key {
    const stack = Stack.of(this);
    const key = new kms.Key(this, "Key", {
      description: "Everything that the self-hosted node keeps",
      enableKeyRotation: true,
    });
    // Without it alarms and the budget could not write to the encrypted topic.
    key.addToResourcePolicy(
      new iam.PolicyStatement({
        sid: "Alarms",
        principals: [
          new iam.ServicePrincipal("cloudwatch.amazonaws.com"),
          new iam.ServicePrincipal("budgets.amazonaws.com"),
        ],
        actions: ["kms:Decrypt", "kms:GenerateDataKey*"],
        resources: ["*"],
        conditions: { StringEquals: { "aws:SourceAccount": stack.account } },
      }),
    );
    key.addToResourcePolicy(
      new iam.PolicyStatement({
        sid: "Logs",
        principals: [new iam.ServicePrincipal(`logs.${stack.region}.amazonaws.com`)],
        actions: ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"],
        resources: ["*"],
        conditions: {
          ArnLike: {
            "kms:EncryptionContext:aws:logs:arn": stack.formatArn({
              service: "logs", resource: "log-group", resourceName: `${this.props.logPrefix}*`,
              arnFormat: ArnFormat.COLON_RESOURCE_NAME,
            }),
          },
        },
      }),
    );
    return key;
  }

  private snapshots(days: number) {
    const stack = Stack.of(this);
    const snapshots = `arn:${stack.partition}:ec2:${stack.region}::snapshot/*`;
    const volumes = stack.formatArn({ service: "ec2", resource: "volume", resourceName: "*" });
    const role = new iam.Role(this, "SnapshotRole", {
      assumedBy: new iam.ServicePrincipal("dlm.amazonaws.com"),
      inlinePolicies: {
        snapshots: new iam.PolicyDocument({
          statements: [
            new iam.PolicyStatement({
              actions: ["ec2:CreateSnapshot"],
              resources: [volumes],
              conditions: { StringEquals: { "aws:ResourceTag/backup": this.backupTag } },
            }),
            new iam.PolicyStatement({
              actions: ["ec2:CreateSnapshot", "ec2:CreateTags", "ec2:DeleteSnapshot"],
              resources: [snapshots],
            }),
            new iam.PolicyStatement({
              actions: ["ec2:DescribeVolumes", "ec2:DescribeSnapshots", "ec2:DescribeInstances"],
              resources: ["*"],
            }),
          ],
        }),
      },
    });
    Validations.of(role).acknowledge(
      {
        id: "AwsSolutions-IAM5[Resource::*]",
        reason: "Describe calls of EC2 know no resources",
      },
      {
        id: "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:ec2:<AWS::Region>::snapshot/*]",
        reason: "Snapshots have no name before they are made",
      },
      {
        id: "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:ec2:<AWS::Region>:<AWS::AccountId>:volume/*]",
        reason: "Bound by the volume's tag; a cut-over brings further volumes",
      },
    );
    new dlm.CfnLifecyclePolicy(this, "Daily", {
      description: `Daily snapshots of ${this.backupTag}`,
      state: "ENABLED",
      executionRoleArn: role.roleArn,
      policyDetails: {
        resourceTypes: ["VOLUME"],
        targetTags: [{ key: "backup", value: this.backupTag }],
        schedules: [
          {
            name: "daily",
            createRule: { interval: 24, intervalUnit: "HOURS", times: ["04:00"] },
            retainRule: { interval: days, intervalUnit: "DAYS" },
            copyTags: true,
          },
        ],
      },
    });
  }
}
