import { App } from "aws-cdk-lib";
import { Match, Template } from "aws-cdk-lib/assertions";
import { describe, expect, it } from "vitest";
import { environment } from "../lib/config/environments.js";
import { EsploraStack, type EsploraProps } from "../lib/stack.js";

const certificateArn = "arn:aws:acm:us-east-2:123456789012:certificate/1";

export function stack(name: string, more: Partial<EsploraProps> = {}) {
  return new EsploraStack(new App(), `Test-${name}`, {
    environment: environment(name),
    versions: { blue: "1.2.3" },
    artifactsBucket: "artifacts",
    domain: "api.example.com",
    certificateArn,
    ...more,
  });
}
const template = (name: string, more: Partial<EsploraProps> = {}) => Template.fromStack(stack(name, more));
const environments = ["dev", "staging", "production"];
const none = Match.absent();

/** User data of the only instance as text. */
function userData(made: Template): string {
  const [instance] = Object.values(made.findResources("AWS::EC2::Instance"));
  return JSON.stringify(instance.Properties.UserData);
}

describe("every environment", () => {
  for (const name of environments) {
    const made = template(name);
    it(`${name} has the plan's network: 10.0.0.0/16, public subnets only, an Elastic IP`, () => {
      made.hasResourceProperties("AWS::EC2::VPC", { CidrBlock: "10.0.0.0/16" });
      made.resourceCountIs("AWS::EC2::Subnet", environment(name).balancer ? 2 : 1);
      made.allResourcesProperties("AWS::EC2::Subnet", { MapPublicIpOnLaunch: true });
      made.resourceCountIs("AWS::EC2::NatGateway", 0);
      made.resourceCountIs("AWS::EC2::EIP", 1);
      made.resourceCountIs("AWS::EC2::Instance", 1);
    });
    it(`${name} keeps its data when the stack goes`, () => {
      made.hasResource("AWS::EC2::Volume", {
        DeletionPolicy: "Retain",
        Properties: { Encrypted: true, Size: environment(name).volumeGb, VolumeType: "gp3" },
      });
      made.hasResource("AWS::S3::Bucket", { DeletionPolicy: "Retain" });
    });
    it(`${name} is checked every five minutes, with ten seconds for an answer`, () => {
      made.hasResourceProperties("AWS::Events::Rule", { ScheduleExpression: "rate(5 minutes)" });
      made.hasResourceProperties("AWS::Lambda::Function", {
        Handler: "handler.handler",
        Environment: { Variables: Match.objectLike({ TIMEOUT_SECS: "10", SLOTS: "" }) },
      });
    });
    it(`${name} has the plan's alarms`, () => {
      const alarm = (MetricName: string, Threshold: number, ComparisonOperator: string, EvaluationPeriods: number, Period = 300) =>
        made.hasResourceProperties("AWS::CloudWatch::Alarm", {
          MetricName, Threshold, ComparisonOperator, EvaluationPeriods, Period,
          AlarmActions: [Match.anyValue()], OKActions: [Match.anyValue()],
        });
      alarm("Reachable", 1, "LessThanThreshold", 1);
      alarm("BlocksBehind", 10, "GreaterThanThreshold", 2);
      alarm("TipAgeSeconds", 1800, "GreaterThanThreshold", 3);
      alarm("Reachable", 0.995, "LessThanThreshold", 1, 86400);
      alarm("disk_used_percent", 80, "GreaterThanThreshold", 2);
      alarm("disk_used_percent", 90, "GreaterThanThreshold", 1);
      alarm("CPUUtilization", 90, "GreaterThanThreshold", 2);
      alarm("StatusCheckFailed", 0, "GreaterThanThreshold", 1);
      alarm("procstat_lookup_pid_count", 1, "LessThanThreshold", 1);
      made.resourceCountIs("AWS::CloudWatch::Alarm", 9);
    });
    it(`${name} shows sync progress and the rate of requests`, () => {
      const text = JSON.stringify(made.findResources("AWS::CloudWatch::Dashboard"));
      for (const metric of ["SyncPercent", "Requests", "BlocksBehind", "disk_used_percent"]) {
        expect(text).toContain(metric);
      }
    });
    it(`${name} tells of costs above its target`, () => {
      made.hasResourceProperties("AWS::Budgets::Budget", {
        Budget: Match.objectLike({ BudgetLimit: { Amount: environment(name).budgetUsd, Unit: "USD" } }),
      });
    });
    it(`${name} needs tokens for its metadata`, () => {
      made.hasResourceProperties("AWS::EC2::LaunchTemplate", {
        LaunchTemplateData: { MetadataOptions: { HttpTokens: "required" } },
      });
    });
    it(`${name} archives weekly, and to Glacier after 30 days`, () => {
      expect(userData(made)).toContain("SETUP_SNAPSHOTS_CALENDAR='Sun ");
      made.hasResourceProperties("AWS::S3::Bucket", {
        LifecycleConfiguration: {
          Rules: [Match.objectLike({ Transitions: [{ StorageClass: "GLACIER", TransitionInDays: 30 }] })],
        },
      });
    });
    it(`${name}'s alarms and logs may use the key`, () => {
      const statement = (Sid: string) => Match.objectLike({ Sid, Effect: "Allow" });
      made.hasResourceProperties("AWS::KMS::Key", {
        KeyPolicy: { Statement: Match.arrayWith([statement("Alarms"), statement("Logs")]) },
      });
    });
    it(`${name} runs its user data at every boot, with the API on port 3000`, () => {
      expect(userData(made)).toContain("[scripts-user, always]");
      expect(userData(made)).toContain("SETUP_HTTP_PORT='3000'");
    });
  }
});

it("dev is a spot instance with a public port and no balancer", () => {
  const dev = template("dev");
  dev.resourceCountIs("AWS::ElasticLoadBalancingV2::LoadBalancer", 0);
  dev.hasResourceProperties("AWS::EC2::SecurityGroup", {
    SecurityGroupIngress: [Match.objectLike({ FromPort: 3000, ToPort: 3000, CidrIp: "0.0.0.0/0" })],
  });
  dev.hasResourceProperties("AWS::EC2::LaunchTemplate", {
    LaunchTemplateData: { InstanceMarketOptions: { SpotOptions: { MaxPrice: "0.05" } } },
  });
  dev.hasResourceProperties("AWS::EC2::Instance", { InstanceType: "t3a.large" });
  dev.resourceCountIs("AWS::DLM::LifecyclePolicy", 0);
});

for (const name of ["staging", "production"]) {
  it(`${name} stands behind HTTPS, and only the balancer reaches the node`, () => {
    const made = template(name);
    made.hasResourceProperties("AWS::EC2::Instance", { InstanceType: "t3a.xlarge" });
    made.hasResourceProperties("AWS::EC2::LaunchTemplate", { LaunchTemplateData: { InstanceMarketOptions: none } });
    made.hasResourceProperties("AWS::ElasticLoadBalancingV2::TargetGroup", {
      HealthCheckPath: "/health", Port: 3000,
    });
    made.hasResourceProperties("AWS::ElasticLoadBalancingV2::Listener", { Port: 443, Protocol: "HTTPS" });
    made.hasResourceProperties("AWS::EC2::SecurityGroup", { GroupDescription: "The node", SecurityGroupIngress: none });
    made.hasResourceProperties("AWS::EC2::SecurityGroupIngress", { FromPort: 3000, SourceSecurityGroupId: Match.anyValue() });
    // The certificate is of the name, so the check must ask by it.
    made.hasResourceProperties("AWS::Lambda::Function", {
      Environment: { Variables: Match.objectLike({ NODE_URL: "https://api.example.com" }) },
    });
  });
}

it("the environments are the plan's", () => {
  const plan = (name: string) => [environment(name).network, environment(name).volumeGb, environment(name).budgetUsd];
  expect(plan("dev")).toEqual(["testnet4", 200, 44]);
  expect(plan("staging").slice(0, 2)).toEqual(["testnet4", 250]);
  expect(plan("production")).toEqual(["mainnet", 1600, 277]);
});

it("production is backed up daily for a week", () => {
  template("production").hasResourceProperties("AWS::DLM::LifecyclePolicy", {
    PolicyDetails: {
      TargetTags: [{ Key: "backup", Value: "pulse-production" }],
      Schedules: [Match.objectLike({
        CreateRule: Match.objectLike({ Interval: 24 }), RetainRule: { Interval: 7, IntervalUnit: "DAYS" },
      })],
    },
  });
  template("production").hasResourceProperties("AWS::EC2::Volume", {
    Tags: Match.arrayWith([{ Key: "backup", Value: "pulse-production" }]),
  });
});

describe("a cut-over", () => {
  const versions = { blue: "1.2.3", green: "1.3.0" };
  it("begins with all requests at the live node, and the next one asked by a header only", () => {
    const both = template("production", { versions, live: "blue" });
    both.resourceCountIs("AWS::EC2::Instance", 2);
    both.resourceCountIs("AWS::EC2::Volume", 2);
    both.hasResourceProperties("AWS::ElasticLoadBalancingV2::Listener", {
      DefaultActions: [Match.objectLike({
        ForwardConfig: { TargetGroups: [Match.objectLike({ Weight: 100 }), Match.objectLike({ Weight: 0 })] },
      })],
    });
    both.hasResourceProperties("AWS::ElasticLoadBalancingV2::ListenerRule", {
      Conditions: [{ Field: "http-header", HttpHeaderConfig: { HttpHeaderName: "X-Pulse-Slot", Values: ["green"] } }],
    });
    both.hasResourceProperties("AWS::Lambda::Function", {
      Environment: { Variables: Match.objectLike({ SLOTS: "blue green" }) },
    });
  });
  it("is rolled back above 5 % errors, 3 s, 10 blocks", () => {
    const both = template("production", { versions, live: "blue" });
    for (const [name, Threshold] of [["errors", 5], ["slow", 3], ["behind", 10]] as const) {
      both.hasResourceProperties("AWS::CloudWatch::Alarm", {
        AlarmName: `pulse-production-cutover-${name}`, Threshold, ComparisonOperator: "GreaterThanThreshold",
      });
    }
  });
  it("ends with the next node live, and then alone", () => {
    const moved = template("production", { versions, live: "green" });
    moved.hasResourceProperties("AWS::ElasticLoadBalancingV2::Listener", {
      DefaultActions: [Match.objectLike({
        ForwardConfig: { TargetGroups: [Match.objectLike({ Weight: 0 }), Match.objectLike({ Weight: 100 })] },
      })],
    });
    const alone = template("production", { versions: { green: "1.3.0" } });
    alone.resourceCountIs("AWS::EC2::Instance", 1);
    alone.resourceCountIs("AWS::ElasticLoadBalancingV2::TargetGroup", 1);
  });
  it("does not touch the live node", () => {
    const of = (made: Template) => JSON.stringify(made.findResources("AWS::EC2::Instance"));
    const before = JSON.parse(of(template("production")));
    expect(JSON.parse(of(template("production", { versions, live: "blue" })))).toMatchObject(before);
  });
  it("starts the next node from a snapshot if there is one", () => {
    template("production", { versions, live: "blue", snapshots: { green: "snap-1" } })
      .hasResourceProperties("AWS::EC2::Volume", { SnapshotId: "snap-1" });
  });
});

it("the hybrid mode names the fallback", () => {
  const fallback = "https://esplora.example/api";
  expect(userData(template("dev", { fallback }))).toContain(`SETUP_FALLBACK='${fallback}'`);
  expect(userData(template("dev"))).toContain("SETUP_FALLBACK=''");
});

it("SSH is closed, or open for one address", () => {
  const text = (more: Partial<EsploraProps>) => JSON.stringify(template("dev", more).toJSON());
  expect(text({})).not.toContain('"FromPort":22');
  expect(text({ adminCidr: "192.0.2.1/32" })).toContain('"FromPort":22');
  expect(() => template("dev", { adminCidr: "0.0.0.0/0" })).toThrow("one address");
});

it("a zone gives the name and the certificate", () => {
  const made = template("staging", { certificateArn: undefined, zone: { id: "Z1", name: "example.com" } });
  made.hasResourceProperties("AWS::Route53::RecordSet", { Name: "api.example.com.", Type: "A" });
  made.hasResourceProperties("AWS::CertificateManager::Certificate", { DomainName: "api.example.com" });
});

it("who is to be told is told", () => {
  template("dev", { email: "a@example.com" })
    .hasResourceProperties("AWS::SNS::Subscription", { Protocol: "email", Endpoint: "a@example.com" });
});

it("what makes no sense is refused", () => {
  expect(() => environment("test")).toThrow("no environment");
  expect(() => environment("cutover")).toThrow("no environment");
  expect(() => template("dev", { versions: { blue: "1.0; rm -rf /" } })).toThrow("no version");
  expect(() => template("dev", { fallback: "https://a/'; reboot" })).toThrow("no https URL");
  expect(() => template("dev", { versions: {} })).toThrow("live must name");
  expect(() => template("dev", { live: "green" })).toThrow("live must name");
  expect(() => template("production", { versions: { blue: "1.2.3", green: "1.3.0" } })).toThrow("live must name");
  expect(() => template("staging", { certificateArn: undefined })).toThrow("certificate");
  expect(() => template("staging", { domain: undefined })).toThrow("needs domain");
});
