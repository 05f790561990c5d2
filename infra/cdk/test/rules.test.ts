/** The AWS Solutions rules of cdk-nag hold; what does not has its reason beside the code. */
import { App, Stack } from "aws-cdk-lib";
import * as s3 from "aws-cdk-lib/aws-s3";
import { AwsSolutionsChecks } from "cdk-nag";
import { expect, it } from "vitest";
import { environment } from "../lib/config/environments.js";
import { EsploraStack, type EsploraProps } from "../lib/stack.js";

/** Rule and place of everything that the rules do not like. */
function violations(scope: Stack): string[] {
  return new AwsSolutionsChecks(scope.node.root)
    .validateScope(scope)
    .violations.map(({ ruleName, ...found }) => `${ruleName} ${JSON.stringify(found)}`);
}

const scenes: Record<string, Partial<EsploraProps> & { name: string }> = {
  dev: { name: "dev", adminCidr: "192.0.2.1/32", email: "a@example.com" },
  staging: { name: "staging", zone: { id: "Z1", name: "example.com" } },
  production: { name: "production", certificateArn: "arn:aws:acm:us-east-2:123456789012:certificate/1" },
  "a cut-over": {
    name: "production", versions: { blue: "1.2.3", green: "1.3.0" }, live: "blue",
    certificateArn: "arn:aws:acm:us-east-2:123456789012:certificate/1",
  },
};
for (const [scene, { name, ...more }] of Object.entries(scenes)) {
  it(`${scene} breaks no rule without a reason`, () => {
    const stack = new EsploraStack(new App(), "Test", {
      environment: environment(name),
      versions: { blue: "1.2.3" },
      artifactsBucket: "artifacts",
      domain: "api.example.com",
      ...more,
    });
    expect(violations(stack)).toEqual([]);
  });
}

it("the rules see what is wrong", () => {
  const stack = new Stack(new App(), "Test");
  new s3.Bucket(stack, "Open");
  expect(violations(stack).join()).toContain("AwsSolutions-S10");
});
