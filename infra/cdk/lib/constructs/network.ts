import { RemovalPolicy, Validations } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as kms from "aws-cdk-lib/aws-kms";
import * as logs from "aws-cdk-lib/aws-logs";
import { Construct } from "constructs";
import { publicPort } from "../config/environments.js";

export interface NetworkProps {
  /** The one address (A.B.C.D/32) that may use SSH; without it SSH is closed. */
  readonly adminCidr?: string;
  /** Whether clients come through a balancer, which needs a second zone. */
  readonly balancer: boolean;
  /** Encrypts the flow logs. */
  readonly key: kms.IKey;
  /** Start of the names of log groups. */
  readonly logPrefix: string;
}

/** A VPC with public subnets, and who may reach the nodes. */
export class Network extends Construct {
  readonly vpc: ec2.Vpc;
  readonly nodeGroup: ec2.SecurityGroup;

  constructor(scope: Construct, id: string, props: NetworkProps) {
    super(scope, id);
    if (props.adminCidr !== undefined && !props.adminCidr.endsWith("/32")) {
      throw new Error("adminCidr must be one address, as A.B.C.D/32");
    }
    this.vpc = new ec2.Vpc(this, "Vpc", {
      ipAddresses: ec2.IpAddresses.cidr("10.0.0.0/16"),
      maxAzs: props.balancer ? 2 : 1,
      natGateways: 0,
      restrictDefaultSecurityGroup: true,
      subnetConfiguration: [
        { name: "public", subnetType: ec2.SubnetType.PUBLIC, cidrMask: 24 },
      ],
      gatewayEndpoints: { s3: { service: ec2.GatewayVpcEndpointAwsService.S3 } },
    });
    this.vpc.addFlowLog("Flows", {
      destination: ec2.FlowLogDestination.toCloudWatchLogs(
        new logs.LogGroup(this, "FlowLog", {
          logGroupName: `${props.logPrefix}/flows`,
          retention: logs.RetentionDays.ONE_MONTH,
          encryptionKey: props.key,
          removalPolicy: RemovalPolicy.DESTROY,
        }),
      ),
    });
    this.nodeGroup = new ec2.SecurityGroup(this, "Node", {
      vpc: this.vpc,
      description: "The node",
      // Peers of Bitcoin listen on any port.
      allowAllOutbound: true,
    });
    if (props.adminCidr !== undefined) {
      this.nodeGroup.addIngressRule(ec2.Peer.ipv4(props.adminCidr), ec2.Port.tcp(22), "SSH of the administrator");
    }
    if (!props.balancer) {
      this.nodeGroup.addIngressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(publicPort), "The API");
      Validations.of(this.nodeGroup).acknowledge({
        id: "AwsSolutions-EC23",
        reason: "A public API: the port is open to everybody where no balancer stands in front",
      });
    }
  }
}
