import { CfnOutput, RemovalPolicy, Stack, type StackProps, Tags } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as logs from "aws-cdk-lib/aws-logs";
import * as s3 from "aws-cdk-lib/aws-s3";
import type { Construct } from "constructs";
import { type Environment, publicPort, type Slot, slots } from "./config/environments.js";
import { Compute } from "./constructs/compute.js";
import { Monitoring } from "./constructs/monitoring.js";
import { Network } from "./constructs/network.js";
import { OptionalAlb } from "./constructs/optional-alb.js";
import { Storage } from "./constructs/storage.js";

export interface EsploraProps extends StackProps {
  readonly environment: Environment;
  /** Version of pulse-node in each slot: one, or during a cut-over two. */
  readonly versions: { readonly [slot in Slot]?: string };
  /** The slot that serves; may be left out where there is only one. */
  readonly live?: Slot;
  /** Snapshots from which volumes are made. */
  readonly snapshots?: { readonly [slot in Slot]?: string };
  readonly artifactsBucket: string;
  readonly adminCidr?: string;
  readonly email?: string;
  /** Name of the API; needed where the environment has a balancer. */
  readonly domain?: string;
  /** Certificate of the name; without it one is made in the zone. */
  readonly certificateArn?: string;
  readonly zone?: { readonly id: string; readonly name: string };
  /** Another Esplora that answers what the node does not know yet: the hybrid mode. */
  readonly fallback?: string;
}

/** A self-hosted Esplora: one pulse-node, watched and backed up; two during a cut-over. */
export class EsploraStack extends Stack {
  constructor(scope: Construct, id: string, props: EsploraProps) {
    super(scope, id, props);
    const { environment } = props;
    const used = slots.filter((slot) => props.versions[slot] !== undefined);
    const live = props.live ?? (used.length === 1 ? used[0] : undefined);
    if (live === undefined || !used.includes(live)) {
      throw new Error("live must name the one of the slots that serves");
    }
    const logPrefix = `/pulse/self-hosted-${environment.name}`;
    const storage = new Storage(this, "Storage", { environment, logPrefix });
    const network = new Network(this, "Network", {
      adminCidr: props.adminCidr,
      balancer: environment.balancer,
      key: storage.key,
      logPrefix,
    });
    const logGroup = new logs.LogGroup(this, "Logs", {
      logGroupName: `${logPrefix}/node`,
      retention: logs.RetentionDays.THREE_MONTHS,
      encryptionKey: storage.key,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    const artifacts = s3.Bucket.fromBucketName(this, "Artifacts", props.artifactsBucket);
    const nodes = new Map<Slot, Compute>();
    for (const slot of used) {
      const zone = network.vpc.availabilityZones[0];
      nodes.set(slot, new Compute(this, slot === "blue" ? "Blue" : "Green", {
        environment,
        slot,
        network,
        storage,
        volume: storage.volume(slot, zone, props.snapshots?.[slot]),
        artifacts,
        version: props.versions[slot]!,
        logGroup,
        fallback: props.fallback,
      }));
    }
    // A fixed address of the live node; without a balancer clients come here.
    const address = new ec2.CfnEIP(this, "Address", {
      domain: "vpc",
      instanceId: nodes.get(live)!.instance.instanceId,
    });
    let url = `http://${address.ref}:${publicPort}`;
    let alb: OptionalAlb | undefined;
    if (environment.balancer) {
      if (props.domain === undefined) {
        throw new Error(`${environment.name} has a balancer and needs domain`);
      }
      alb = new OptionalAlb(this, "Alb", {
        network, nodes, live, domain: props.domain, certificateArn: props.certificateArn, zone: props.zone,
      });
      url = `https://${props.domain}`;
      new CfnOutput(this, "Balancer", { value: alb.balancer.loadBalancerDnsName });
    }
    new Monitoring(this, "Monitoring", {
      environment, nodes, live, alb, nodeUrl: url, key: storage.key, logPrefix, email: props.email,
    });
    Tags.of(this).add("project", "pulse-node");
    Tags.of(this).add("environment", environment.name);
    Tags.of(this).add("stack", `pulse-self-hosted-${environment.name}`);
    new CfnOutput(this, "Url", { value: url });
    new CfnOutput(this, "PublicAddress", { value: address.ref });
    new CfnOutput(this, "ArchiveBucket", { value: storage.archive.bucketName });
  }
}
