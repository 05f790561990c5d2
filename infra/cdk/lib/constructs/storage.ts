import { Duration, RemovalPolicy, Size, Stack } from "aws-cdk-lib";
import * as dlm from "aws-cdk-lib/aws-dlm";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as iam from "aws-cdk-lib/aws-iam";
import * as kms from "aws-cdk-lib/aws-kms";
import * as s3 from "aws-cdk-lib/aws-s3";
import { Construct } from "constructs";
import type { Environment } from "../config/environments.js";

export interface StorageProps {
  readonly environment: Environment;
  readonly zone: string;
}

/** The data volume with its daily snapshots, and the bucket of the weekly archive. */
export class Storage extends Construct {
  readonly key: kms.Key;
  readonly volume: ec2.Volume;
  readonly archive: s3.Bucket;

  constructor(scope: Construct, id: string, props: StorageProps) {
    super(scope, id);
    this.key = new kms.Key(this, "Key", {
      description: "The node's volume and archive",
      enableKeyRotation: true,
    });
    this.volume = new ec2.Volume(this, "Data", {
      availabilityZone: props.zone,
      size: Size.gibibytes(props.environment.volumeGb),
      volumeType: ec2.EbsDeviceVolumeType.GP3,
      iops: 6000,
      throughput: 250,
      encrypted: true,
      encryptionKey: this.key,
      // A chain takes long to load again.
      removalPolicy: RemovalPolicy.RETAIN,
    });
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
          noncurrentVersionExpiration: Duration.days(30),
          transitions: [
            { storageClass: s3.StorageClass.GLACIER, transitionAfter: Duration.days(30) },
          ],
        },
      ],
    });
    if (props.environment.keepSnapshotsDays > 0) {
      this.snapshots(props.environment);
    }
  }

  private snapshots(environment: Environment) {
    const tag = `pulse-${environment.name}`;
    const role = new iam.Role(this, "SnapshotRole", {
      assumedBy: new iam.ServicePrincipal("dlm.amazonaws.com"),
      inlinePolicies: {
        snapshots: new iam.PolicyDocument({
          statements: [
            new iam.PolicyStatement({
              actions: ["ec2:CreateSnapshot", "ec2:CreateTags", "ec2:DeleteSnapshot"],
              resources: [
                `arn:${Stack.of(this).partition}:ec2:${Stack.of(this).region}::snapshot/*`,
                `arn:${Stack.of(this).partition}:ec2:${Stack.of(this).region}:${Stack.of(this).account}:volume/${this.volume.volumeId}`,
              ],
            }),
            new iam.PolicyStatement({
              actions: ["ec2:DescribeVolumes", "ec2:DescribeSnapshots", "ec2:DescribeInstances"],
              resources: ["*"],
            }),
          ],
        }),
      },
    });
    new dlm.CfnLifecyclePolicy(this, "Daily", {
      description: `Daily snapshots of ${tag}`,
      state: "ENABLED",
      executionRoleArn: role.roleArn,
      policyDetails: {
        resourceTypes: ["VOLUME"],
        targetTags: [{ key: "backup", value: tag }],
        schedules: [
          {
            name: "daily",
            createRule: { interval: 24, intervalUnit: "HOURS", times: ["04:00"] },
            retainRule: { interval: environment.keepSnapshotsDays, intervalUnit: "DAYS" },
            copyTags: true,
          },
        ],
      },
    });
  }
}
