import { Duration } from "aws-cdk-lib";
import * as cw from "aws-cdk-lib/aws-cloudwatch";
import { SnsAction } from "aws-cdk-lib/aws-cloudwatch-actions";
import * as events from "aws-cdk-lib/aws-events";
import { LambdaFunction } from "aws-cdk-lib/aws-events-targets";
import * as iam from "aws-cdk-lib/aws-iam";
import * as kms from "aws-cdk-lib/aws-kms";
import * as lambda from "aws-cdk-lib/aws-lambda";
import * as logs from "aws-cdk-lib/aws-logs";
import * as sns from "aws-cdk-lib/aws-sns";
import { EmailSubscription } from "aws-cdk-lib/aws-sns-subscriptions";
import { Construct } from "constructs";
import { fileURLToPath } from "node:url";
import { type Environment, instance } from "../config/environments.js";

export interface MonitoringProps {
  readonly environment: Environment;
  readonly instanceId: string;
  /** Where the check asks our node. */
  readonly nodeUrl: string;
  readonly key: kms.IKey;
  /** Who is told of alarms. */
  readonly email?: string;
}

/** The check every five minutes, alarms, and a dashboard. */
export class Monitoring extends Construct {
  readonly topic: sns.Topic;
  private readonly props: MonitoringProps;

  constructor(scope: Construct, id: string, props: MonitoringProps) {
    super(scope, id);
    this.props = props;
    this.topic = new sns.Topic(this, "Alarms", { masterKey: props.key, enforceSSL: true });
    if (props.email !== undefined) {
      this.topic.addSubscription(new EmailSubscription(props.email));
    }
    this.check();
    const node = (metricName: string, statistic: string) =>
      new cw.Metric({
        namespace: "Pulse",
        metricName,
        statistic,
        period: Duration.minutes(5),
        dimensionsMap: { Node: props.environment.name },
      });
    const machine = (metricName: string) =>
      new cw.Metric({
        namespace: "AWS/EC2",
        metricName,
        statistic: "Average",
        period: Duration.minutes(5),
        dimensionsMap: { InstanceId: props.instanceId },
      });
    const disk = new cw.Metric({
      namespace: "Pulse",
      metricName: "disk_used_percent",
      statistic: "Maximum",
      period: Duration.minutes(5),
      dimensionsMap: { InstanceId: props.instanceId, path: instance.data_volume },
    });
    const above = cw.ComparisonOperator.GREATER_THAN_THRESHOLD;
    const below = cw.ComparisonOperator.LESS_THAN_THRESHOLD;
    const { BREACHING, MISSING, NOT_BREACHING } = cw.TreatMissingData;

    this.alarm("NotReachable", "The node does not answer within 10 s", node("Reachable", "Minimum"), below, 1, 1, BREACHING);
    this.alarm("Behind", "More than 10 blocks behind a public API", node("BlocksBehind", "Minimum"), above, 10, 2, NOT_BREACHING);
    this.alarm("NoNewBlock", "No new block for more than 30 minutes, three checks long", node("TipAgeSeconds", "Minimum"), above, 30 * 60, 3, NOT_BREACHING);
    this.alarm("Disk80", "The data volume is more than 80 % full", disk, above, 80, 2, MISSING);
    this.alarm("Disk90", "The data volume is more than 90 % full", disk, above, 90, 1, MISSING);
    this.alarm("Cpu", "The processor has been above 90 % for ten minutes", machine("CPUUtilization"), above, 90, 2, MISSING);
    this.alarm("Status", "The instance fails its status checks", machine("StatusCheckFailed"), above, 0, 1, BREACHING);

    new cw.Dashboard(this, "Dashboard", {
      widgets: [
        [
          new cw.GraphWidget({ title: "Tip height", left: [node("TipHeight", "Maximum")], width: 8 }),
          new cw.GraphWidget({ title: "Blocks behind a public API", left: [node("BlocksBehind", "Maximum")], width: 8 }),
          new cw.GraphWidget({ title: "Answer, seconds", left: [node("AnswerSeconds", "Maximum")], width: 8 }),
        ],
        [
          new cw.GraphWidget({ title: "Processor", left: [machine("CPUUtilization")], width: 8 }),
          new cw.GraphWidget({ title: "Data volume, percent used", left: [disk], width: 8 }),
          new cw.GraphWidget({ title: "Network out", left: [machine("NetworkOut")], width: 8 }),
        ],
      ],
    });
  }

  private alarm(
    id: string,
    alarmDescription: string,
    metric: cw.IMetric,
    comparisonOperator: cw.ComparisonOperator,
    threshold: number,
    evaluationPeriods: number,
    treatMissingData: cw.TreatMissingData,
  ) {
    const alarm = new cw.Alarm(this, id, {
      alarmDescription, metric, comparisonOperator, threshold, evaluationPeriods, treatMissingData,
    });
    alarm.addAlarmAction(new SnsAction(this.topic));
    alarm.addOkAction(new SnsAction(this.topic));
  }

  private check() {
    const check = new lambda.Function(this, "Check", {
      runtime: lambda.Runtime.PYTHON_3_13,
      handler: "handler.handler",
      code: lambda.Code.fromAsset(
        fileURLToPath(new URL("../../../lambda/health_check", import.meta.url)),
        { exclude: ["test_*", "__pycache__"] },
      ),
      timeout: Duration.seconds(60),
      memorySize: 128,
      reservedConcurrentExecutions: 1,
      logGroup: new logs.LogGroup(this, "CheckLog", { retention: logs.RetentionDays.ONE_MONTH }),
      environment: {
        NODE_URL: this.props.nodeUrl,
        PUBLIC_URL: this.props.environment.publicApi,
        NAMESPACE: "Pulse",
        NODE_NAME: this.props.environment.name,
        TIMEOUT_SECS: "10",
      },
    });
    check.addToRolePolicy(
      new iam.PolicyStatement({
        actions: ["cloudwatch:PutMetricData"],
        resources: ["*"],
        conditions: { StringEquals: { "cloudwatch:namespace": "Pulse" } },
      }),
    );
    new events.Rule(this, "EveryFiveMinutes", {
      schedule: events.Schedule.rate(Duration.minutes(5)),
      targets: [new LambdaFunction(check, { retryAttempts: 0 })],
    });
  }
}
