import { App } from "aws-cdk-lib";
import { Match, Template } from "aws-cdk-lib/assertions";
import { describe, expect, it } from "vitest";
import { environment } from "../lib/config/environments.js";
import { EsploraStack, type EsploraProps } from "../lib/stack.js";

const certificateArn = "arn:aws:acm:us-east-2:123456789012:certificate/1";

function template(name: string, more: Partial<EsploraProps> = {}) {
  const app = new App();
  const stack = new EsploraStack(app, `Test-${name}`, {
    environment: environment(name),
    version: "1.2.3",
    artifactsBucket: "artifacts",
    certificateArn,
    ...more,
  });
  return Template.fromStack(stack);
}

describe("every environment", () => {
  for (const name of ["dev", "staging", "production"]) {
    it(`${name} keeps its data when the stack goes`, () => {
      template(name).hasResource("AWS::EC2::Volume", {
        DeletionPolicy: "Retain",
        Properties: { Encrypted: true, Size: environment(name).volumeGb, VolumeType: "gp3" },
      });
    });
    it(`${name} is checked every five minutes`, () => {
      template(name).hasResourceProperties("AWS::Events::Rule", { ScheduleExpression: "rate(5 minutes)" });
      template(name).resourceCountIs("AWS::CloudWatch::Alarm", 7);
    });
    it(`${name} needs tokens for its metadata`, () => {
      template(name).hasResourceProperties("AWS::EC2::LaunchTemplate", {
        LaunchTemplateData: { MetadataOptions: { HttpTokens: "required" } },
      });
    });
  }
});

it("dev is a spot instance with a public port and no balancer", () => {
  const dev = template("dev");
  dev.resourceCountIs("AWS::ElasticLoadBalancingV2::LoadBalancer", 0);
  dev.hasResourceProperties("AWS::EC2::SecurityGroup", {
    SecurityGroupIngress: [Match.objectLike({ FromPort: 3000, CidrIp: "0.0.0.0/0" })],
  });
  dev.hasResourceProperties("AWS::EC2::LaunchTemplate", {
    LaunchTemplateData: { InstanceMarketOptions: { SpotOptions: { MaxPrice: "0.05" } } },
  });
});

it("production stands behind HTTPS and is backed up daily for a week", () => {
  const production = template("production");
  production.hasResourceProperties("AWS::ElasticLoadBalancingV2::TargetGroup", {
    HealthCheckPath: "/health",
    Port: 8080,
  });
  production.hasResourceProperties("AWS::DLM::LifecyclePolicy", {
    PolicyDetails: { Schedules: [Match.objectLike({ RetainRule: { Interval: 7, IntervalUnit: "DAYS" } })] },
  });
  expect(environment("production").volumeGb).toBeGreaterThanOrEqual(1200);
});

it("SSH is closed, or open for one address", () => {
  const text = (more: Partial<EsploraProps>) => JSON.stringify(template("dev", more).toJSON());
  expect(text({})).not.toContain('"FromPort":22');
  expect(text({ adminCidr: "192.0.2.1/32" })).toContain('"FromPort":22');
  expect(() => template("dev", { adminCidr: "0.0.0.0/0" })).toThrow("one address");
});

it("what makes no sense is refused", () => {
  expect(() => environment("test")).toThrow("no environment");
  expect(() => template("dev", { version: "1.0; rm -rf /" })).toThrow("no version");
  expect(() => template("staging", { certificateArn: undefined })).toThrow("certificateArn");
});
