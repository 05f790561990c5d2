import { CfnOutput, Stack, type StackProps, Tags } from "aws-cdk-lib";
import * as logs from "aws-cdk-lib/aws-logs";
import * as s3 from "aws-cdk-lib/aws-s3";
import type { Construct } from "constructs";
import { type Environment, publicPort } from "./config/environments.js";
import { Compute } from "./constructs/compute.js";
import { Monitoring } from "./constructs/monitoring.js";
import { Network } from "./constructs/network.js";
import { OptionalAlb } from "./constructs/optional-alb.js";
import { Storage } from "./constructs/storage.js";

export interface EsploraProps extends StackProps {
  readonly environment: Environment;
  readonly version: string;
  readonly artifactsBucket: string;
  readonly adminCidr?: string;
  readonly email?: string;
  /** Needed where the environment has a balancer. */
  readonly certificateArn?: string;
}

/** A self-hosted Esplora: one pulse-node, watched and backed up. */
export class EsploraStack extends Stack {
  constructor(scope: Construct, id: string, props: EsploraProps) {
    super(scope, id, props);
    const { environment } = props;
    const network = new Network(this, "Network", {
      adminCidr: props.adminCidr,
      balancer: environment.balancer,
    });
    const storage = new Storage(this, "Storage", {
      environment,
      zone: network.vpc.availabilityZones[0],
    });
    const logGroup = new logs.LogGroup(this, "Logs", {
      logGroupName: `/pulse/self-hosted-${environment.name}`,
      retention: logs.RetentionDays.THREE_MONTHS,
    });
    const compute = new Compute(this, "Compute", {
      environment,
      network,
      storage,
      artifacts: s3.Bucket.fromBucketName(this, "Artifacts", props.artifactsBucket),
      version: props.version,
      logGroup,
    });
    let url = `http://${compute.address.ref}:${publicPort}`;
    if (environment.balancer) {
      if (props.certificateArn === undefined) {
        throw new Error(`${environment.name} has a balancer and needs certificateArn`);
      }
      const alb = new OptionalAlb(this, "Alb", { network, compute, certificateArn: props.certificateArn });
      url = `https://${alb.balancer.loadBalancerDnsName}`;
    }
    new Monitoring(this, "Monitoring", {
      environment,
      instanceId: compute.instance.instanceId,
      nodeUrl: url,
      key: storage.key,
      email: props.email,
    });
    Tags.of(storage.volume).add("backup", `pulse-${environment.name}`);
    Tags.of(this).add("project", "pulse-node");
    Tags.of(this).add("environment", environment.name);
    new CfnOutput(this, "Url", { value: url });
  }
}
