import { Duration, RemovalPolicy, Stack, Validations } from "aws-cdk-lib";
import * as budgets from "aws-cdk-lib/aws-budgets";
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
import { HttpCodeTarget } from "aws-cdk-lib/aws-elasticloadbalancingv2";
import { acceptance, cutover, type Environment, instance, type Slot } from "../config/environments.js";
import type { Compute } from "./compute.js";
import { type OptionalAlb, slotHeader } from "./optional-alb.js";

export interface MonitoringProps {
  readonly environment: Environment;
  readonly nodes: ReadonlyMap<Slot, Compute>;
  readonly live: Slot;
  readonly alb?: OptionalAlb;
  /** Where the check asks our node. */
  readonly nodeUrl: string;
  readonly key: kms.IKey;
  /** Start of the names of log groups. */
  readonly logPrefix: string;
  /** Who is told of alarms. */
  readonly email?: string;
}

/** An alarm in a few words; it is raised after `times` periods. */
interface Rule {
  readonly says: string;
  readonly metric: cw.IMetric;
  readonly above?: number;
  readonly below?: number;
  readonly times: number;
  readonly missing: cw.TreatMissingData;
  /** Name of the alarm, where a program looks for it. */
  readonly name?: string;
}

const { BREACHING, MISSING, NOT_BREACHING } = cw.TreatMissingData;

/** The check every five minutes, alarms, a dashboard and a budget. */
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
    this.budget();
    this.alarmsOfTheService();
    for (const [slot, node] of props.nodes) this.alarmsOfTheMachine(slot, node.instance.instanceId);
    for (const slot of props.nodes.keys()) {
      if (slot !== props.live) this.alarmsOfTheCutover(slot);
    }
    this.dashboard();
  }

  /** What the check finds out; of one slot, or of what clients reach. */
  private found(metricName: string, statistic: string, slot?: Slot, period = Duration.minutes(5)) {
    const name = this.props.environment.name;
    return new cw.Metric({
      namespace: "Pulse",
      metricName,
      statistic,
      period,
      dimensionsMap: { Node: slot === undefined ? name : `${name}-${slot}` },
    });
  }

  /** What the machine reports of itself. */
  private reported(metricName: string, statistic: string, InstanceId: string, more: Record<string, string> = {}) {
    return new cw.Metric({
      namespace: "Pulse",
      metricName,
      statistic,
      period: Duration.minutes(5),
      dimensionsMap: { InstanceId, ...more },
    });
  }

  private machine(metricName: string, InstanceId: string, statistic = "Average") {
    return new cw.Metric({
      namespace: "AWS/EC2",
      metricName,
      statistic,
      period: Duration.minutes(5),
      dimensionsMap: { InstanceId },
    });
  }

  private alarmsOfTheService() {
    this.alarm("NotReachable", {
      says: "The node does not answer within 10 s",
      metric: this.found("Reachable", "Minimum"), below: 1, times: 1, missing: BREACHING,
    });
    this.alarm("Behind", {
      says: "More than 10 blocks behind a public API",
      metric: this.found("BlocksBehind", "Minimum"), above: 10, times: 2, missing: NOT_BREACHING,
    });
    this.alarm("NoNewBlock", {
      says: "No new block for more than 30 minutes, three checks long",
      metric: this.found("TipAgeSeconds", "Minimum"), above: 30 * 60, times: 3, missing: NOT_BREACHING,
    });
    this.alarm("Uptime", {
      says: `Reachable for less than ${acceptance.uptime_percent} % of a day`,
      metric: this.found("Reachable", "Average", undefined, Duration.days(1)),
      below: acceptance.uptime_percent / 100, times: 1, missing: MISSING,
    });
  }

  private alarmsOfTheMachine(slot: Slot, id: string) {
    const disk = this.reported("disk_used_percent", "Maximum", id, { path: instance.data_volume });
    this.alarm(`Disk80-${slot}`, {
      says: `The data volume (${slot}) is more than 80 % full`, metric: disk, above: 80, times: 2, missing: MISSING,
    });
    this.alarm(`Disk90-${slot}`, {
      says: `The data volume (${slot}) is more than 90 % full`, metric: disk, above: 90, times: 1, missing: MISSING,
    });
    this.alarm(`Cpu-${slot}`, {
      says: `The processor (${slot}) has been above 90 % for ten minutes`,
      metric: this.machine("CPUUtilization", id), above: 90, times: 2, missing: MISSING,
    });
    this.alarm(`Status-${slot}`, {
      says: `The instance (${slot}) fails its status checks`,
      metric: this.machine("StatusCheckFailed", id, "Maximum"), above: 0, times: 1, missing: BREACHING,
    });
    this.alarm(`Services-${slot}`, {
      says: `pulse-node (${slot}) does not run, or the agent that says so`,
      metric: this.reported("procstat_lookup_pid_count", "Minimum", id, { exe: "pulse-node" }),
      below: 1, times: 1, missing: BREACHING,
    });
  }

  /** What rolls a cut-over to this slot back; infra/cdk/cutover.py looks at them. */
  private alarmsOfTheCutover(slot: Slot) {
    const target = this.props.alb?.targets.get(slot);
    const name = `pulse-${this.props.environment.name}-cutover`;
    this.alarm("CutoverBehind", {
      name: `${name}-behind`,
      says: `The next node is more than ${cutover.lag_blocks} blocks behind`,
      metric: this.found("BlocksBehind", "Maximum", slot),
      above: cutover.lag_blocks, times: 1, missing: BREACHING,
    });
    if (target === undefined) return;
    const period = Duration.minutes(1);
    this.alarm("CutoverErrors", {
      name: `${name}-errors`,
      says: `The next node fails more than ${cutover.errors_percent} % of its requests`,
      metric: new cw.MathExpression({
        expression: "100 * errors / requests",
        period,
        usingMetrics: {
          errors: target.metrics.httpCodeTarget(HttpCodeTarget.TARGET_5XX_COUNT, { period }),
          requests: target.metrics.requestCount({ period }),
        },
      }),
      above: cutover.errors_percent, times: 1, missing: NOT_BREACHING,
    });
    this.alarm("CutoverSlow", {
      name: `${name}-slow`,
      says: `The next node's 95th percentile is above ${cutover.p95_secs} s`,
      metric: target.metrics.targetResponseTime({ period, statistic: "p95" }),
      above: cutover.p95_secs, times: 1, missing: NOT_BREACHING,
    });
  }

  private alarm(id: string, rule: Rule) {
    const alarm = new cw.Alarm(this, id, {
      alarmName: rule.name,
      alarmDescription: rule.says,
      metric: rule.metric,
      comparisonOperator: rule.above === undefined
        ? cw.ComparisonOperator.LESS_THAN_THRESHOLD
        : cw.ComparisonOperator.GREATER_THAN_THRESHOLD,
      threshold: rule.above ?? rule.below!,
      evaluationPeriods: rule.times,
      treatMissingData: rule.missing,
    });
    alarm.addAlarmAction(new SnsAction(this.topic));
    alarm.addOkAction(new SnsAction(this.topic));
  }

  private dashboard() {
    const ids = [...this.props.nodes].map(([slot, node]) => ({ slot, id: node.instance.instanceId }));
    const graph = (title: string, left: cw.IMetric[]) => new cw.GraphWidget({ title, left, width: 8 });
    const each = (metric: (id: string) => cw.Metric) =>
      ids.map(({ slot, id }) => metric(id).with({ label: slot }));
    new cw.Dashboard(this, "Dashboard", {
      widgets: [
        [
          graph("Sync progress, percent", each((id) => this.reported("SyncPercent", "Maximum", id))),
          graph("Requests in five minutes", each((id) => this.reported("Requests", "Sum", id))),
          graph("Failed requests in five minutes", each((id) => this.reported("RequestsFailed", "Sum", id))),
        ],
        [
          graph("Tip height", [this.found("TipHeight", "Maximum")]),
          graph("Blocks behind a public API", [this.found("BlocksBehind", "Maximum")]),
          graph("Answer, seconds", [this.found("AnswerSeconds", "Maximum")]),
        ],
        [
          graph("Processor, percent", each((id) => this.machine("CPUUtilization", id))),
          graph("Data volume, percent used", each((id) =>
            this.reported("disk_used_percent", "Maximum", id, { path: instance.data_volume }))),
          graph("Network out, bytes", each((id) => this.machine("NetworkOut", id))),
        ],
        [
          new cw.SingleValueWidget({
            title: "Reachable, part of the last 30 days",
            metrics: [this.found("Reachable", "Average", undefined, Duration.days(30))],
            width: 8,
          }),
        ],
      ],
    });
  }

  private budget() {
    const { name, budgetUsd } = this.props.environment;
    this.topic.addToResourcePolicy(
      new iam.PolicyStatement({
        sid: "Budget",
        principals: [new iam.ServicePrincipal("budgets.amazonaws.com")],
        actions: ["sns:Publish"],
        resources: [this.topic.topicArn],
        conditions: { StringEquals: { "aws:SourceAccount": Stack.of(this).account } },
      }),
    );
    const told = (notificationType: string, threshold: number) => ({
      notification: { notificationType, threshold, thresholdType: "PERCENTAGE", comparisonOperator: "GREATER_THAN" },
      subscribers: [{ subscriptionType: "SNS", address: this.topic.topicArn }],
    });
    new budgets.CfnBudget(this, "Budget", {
      budget: {
        budgetName: `pulse-self-hosted-${name}`,
        budgetType: "COST",
        timeUnit: "MONTHLY",
        budgetLimit: { amount: budgetUsd, unit: "USD" },
        costFilters: { TagKeyValue: [`user:stack$pulse-self-hosted-${name}`] },
      },
      notificationsWithSubscribers: [told("ACTUAL", 80), told("FORECASTED", 100)],
    });
  }

  private check() {
    const { environment, key, logPrefix, nodes, nodeUrl, alb } = this.props;
    const logGroup = new logs.LogGroup(this, "CheckLog", {
      logGroupName: `${logPrefix}/check`,
      retention: logs.RetentionDays.ONE_MONTH,
      encryptionKey: key,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    const role = new iam.Role(this, "CheckRole", { assumedBy: new iam.ServicePrincipal("lambda.amazonaws.com") });
    logGroup.grantWrite(role);
    role.addToPolicy(
      new iam.PolicyStatement({
        actions: ["cloudwatch:PutMetricData"],
        resources: ["*"],
        conditions: { StringEquals: { "cloudwatch:namespace": "Pulse" } },
      }),
    );
    Validations.of(role).acknowledge({
      id: "AwsSolutions-IAM5[Resource::*]",
      reason: "PutMetricData knows no resources; it is bound to the namespace",
    });
    const check = new lambda.Function(this, "Check", {
      runtime: lambda.Runtime.PYTHON_3_14,
      handler: "handler.handler",
      code: lambda.Code.fromAsset(
        fileURLToPath(new URL("../../../lambda/health_check", import.meta.url)),
        { exclude: ["test_*", "__pycache__"] },
      ),
      role,
      timeout: Duration.minutes(3),
      memorySize: 128,
      reservedConcurrentExecutions: 1,
      logGroup,
      environment: {
        NODE_URL: nodeUrl,
        PUBLIC_URL: environment.publicApi,
        NAMESPACE: "Pulse",
        NODE_NAME: environment.name,
        TIMEOUT_SECS: "10",
        // With two nodes, each is asked besides what clients reach.
        SLOTS: alb !== undefined && nodes.size > 1 ? [...nodes.keys()].join(" ") : "",
        SLOT_HEADER: slotHeader,
      },
      environmentEncryption: key,
    });
    Validations.of(check).acknowledge({
      id: "AwsSolutions-L1",
      reason: "The newest runtime is not everywhere yet; this one is supported until 2029",
    });
    new events.Rule(this, "EveryFiveMinutes", {
      schedule: events.Schedule.rate(Duration.minutes(5)),
      targets: [new LambdaFunction(check, { retryAttempts: 0 })],
    });
  }
}
