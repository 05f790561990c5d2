import { ArnFormat, Duration, Stack, Validations } from "aws-cdk-lib";
import * as acm from "aws-cdk-lib/aws-certificatemanager";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as elb from "aws-cdk-lib/aws-elasticloadbalancingv2";
import * as targets from "aws-cdk-lib/aws-elasticloadbalancingv2-targets";
import * as route53 from "aws-cdk-lib/aws-route53";
import { LoadBalancerTarget } from "aws-cdk-lib/aws-route53-targets";
import { Construct } from "constructs";
import { paths, publicPort, type Slot } from "../config/environments.js";
import type { Compute } from "./compute.js";
import type { Network } from "./network.js";

/** Request header that names the slot to answer, so that both can be asked while one is live. */
export const slotHeader = "X-Pulse-Slot";

export interface OptionalAlbProps {
  readonly network: Network;
  readonly nodes: ReadonlyMap<Slot, Compute>;
  /** The slot that gets all requests; a cut-over moves them by degrees. */
  readonly live: Slot;
  /** Name under which clients come; the certificate is of this name. */
  readonly domain: string;
  /** Certificate of that name. Without it one is asked for, and proven in the zone. */
  readonly certificateArn?: string;
  /** Hosted zone in which the name is to lead here. */
  readonly zone?: { readonly id: string; readonly name: string };
}

/** HTTPS in front of the nodes. */
export class OptionalAlb extends Construct {
  readonly balancer: elb.ApplicationLoadBalancer;
  readonly targets = new Map<Slot, elb.ApplicationTargetGroup>();

  constructor(scope: Construct, id: string, props: OptionalAlbProps) {
    super(scope, id);
    const { vpc, nodeGroup } = props.network;
    this.balancer = new elb.ApplicationLoadBalancer(this, "Alb", {
      vpc,
      internetFacing: true,
      dropInvalidHeaderFields: true,
      idleTimeout: Duration.seconds(120),
      desyncMitigationMode: elb.DesyncMitigationMode.STRICTEST,
    });
    Validations.of(this.balancer).acknowledge(
      { id: "AwsSolutions-ELB2", reason: "Access logs hold addresses of clients and of wallets" },
      { id: "AwsSolutions-EC23", reason: "A public API: everybody may use it" },
    );
    this.balancer.addRedirect();
    for (const [slot, node] of props.nodes) {
      this.targets.set(slot, this.target(slot, node, vpc));
    }
    const listener = this.balancer.addListener("Https", {
      port: 443,
      protocol: elb.ApplicationProtocol.HTTPS,
      sslPolicy: elb.SslPolicy.RECOMMENDED_TLS,
      certificates: [this.certificate(props)],
      defaultAction: elb.ListenerAction.weightedForward(
        [...this.targets].map(([slot, targetGroup]) => ({ targetGroup, weight: slot === props.live ? 100 : 0 })),
      ),
    });
    listener.addAction("Operator", {
      priority: 1,
      conditions: [
        elb.ListenerCondition.pathPatterns(["/metrics", "/stats", "/internal/*", "/peers", "/bans"]),
      ],
      action: elb.ListenerAction.fixedResponse(404, { contentType: "text/plain" }),
    });
    if (this.targets.size > 1) {
      let priority = 10;
      for (const [slot, target] of this.targets) {
        listener.addAction(`Only-${slot}`, {
          priority: priority++,
          conditions: [elb.ListenerCondition.httpHeader(slotHeader, [slot])],
          action: elb.ListenerAction.forward([target]),
        });
      }
    }
    nodeGroup.connections.allowFrom(this.balancer, ec2.Port.tcp(publicPort), "The balancer");
    if (props.zone !== undefined) {
      new route53.ARecord(this, "Name", {
        zone: this.zone(props.zone),
        recordName: `${props.domain}.`,
        target: route53.RecordTarget.fromAlias(new LoadBalancerTarget(this.balancer)),
      });
    }
  }

  private target(slot: Slot, node: Compute, vpc: ec2.IVpc) {
    return new elb.ApplicationTargetGroup(this, slot === "blue" ? "Blue" : "Green", {
      vpc,
      port: publicPort,
      protocol: elb.ApplicationProtocol.HTTP,
      targets: [new targets.InstanceTarget(node.instance, publicPort)],
      deregistrationDelay: Duration.seconds(60),
      // 503 while the node syncs.
      healthCheck: {
        path: paths.ready,
        healthyHttpCodes: "200",
        interval: Duration.seconds(10),
        timeout: Duration.seconds(5),
        healthyThresholdCount: 2,
        unhealthyThresholdCount: 2,
      },
    });
  }

  private certificate({ certificateArn, domain, zone }: OptionalAlbProps): acm.ICertificate {
    if (certificateArn !== undefined) {
      const { service } = Stack.of(this).splitArn(certificateArn, ArnFormat.SLASH_RESOURCE_NAME);
      if (service !== "acm") throw new Error(`${certificateArn} is no certificate`);
      return acm.Certificate.fromCertificateArn(this, "Certificate", certificateArn);
    }
    if (zone === undefined) {
      throw new Error("a balancer needs a certificate, or the zone in which one can be proven");
    }
    return new acm.Certificate(this, "Certificate", {
      domainName: domain,
      validation: acm.CertificateValidation.fromDns(this.zone(zone)),
    });
  }

  private zone({ id, name }: { id: string; name: string }): route53.IHostedZone {
    const found = this.node.tryFindChild("Zone") as route53.IHostedZone | undefined;
    return found ?? route53.HostedZone.fromHostedZoneAttributes(this, "Zone", { hostedZoneId: id, zoneName: name });
  }
}
