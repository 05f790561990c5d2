import { Duration } from "aws-cdk-lib";
import * as acm from "aws-cdk-lib/aws-certificatemanager";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as elb from "aws-cdk-lib/aws-elasticloadbalancingv2";
import * as targets from "aws-cdk-lib/aws-elasticloadbalancingv2-targets";
import { Construct } from "constructs";
import { paths, ports } from "../config/environments.js";
import type { Compute } from "./compute.js";
import type { Network } from "./network.js";

export interface OptionalAlbProps {
  readonly network: Network;
  readonly compute: Compute;
  /** Certificate of the API's name. */
  readonly certificateArn: string;
}

/** HTTPS in front of the node. */
export class OptionalAlb extends Construct {
  readonly balancer: elb.ApplicationLoadBalancer;
  readonly target: elb.ApplicationTargetGroup;

  constructor(scope: Construct, id: string, props: OptionalAlbProps) {
    super(scope, id);
    this.balancer = new elb.ApplicationLoadBalancer(this, "Alb", {
      vpc: props.network.vpc,
      internetFacing: true,
      dropInvalidHeaderFields: true,
      idleTimeout: Duration.seconds(120),
    });
    this.balancer.addRedirect();
    const listener = this.balancer.addListener("Https", {
      port: 443,
      protocol: elb.ApplicationProtocol.HTTPS,
      sslPolicy: elb.SslPolicy.RECOMMENDED_TLS,
      certificates: [
        acm.Certificate.fromCertificateArn(this, "Certificate", props.certificateArn),
      ],
    });
    this.target = listener.addTargets("Node", {
      port: ports.http,
      protocol: elb.ApplicationProtocol.HTTP,
      targets: [new targets.InstanceTarget(props.compute.instance, ports.http)],
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
    listener.addAction("Operator", {
      priority: 1,
      conditions: [elb.ListenerCondition.pathPatterns(["/metrics", "/stats", "/internal/*"])],
      action: elb.ListenerAction.fixedResponse(404, { contentType: "text/plain" }),
    });
    props.network.nodeGroup.connections.allowFrom(this.balancer, ec2.Port.tcp(ports.http), "The balancer");
  }
}
