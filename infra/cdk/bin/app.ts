/**
 * cdk deploy -c environment=dev -c version=0.1.0 -c artifacts=BUCKET
 *     [-c admin=A.B.C.D/32] [-c email=...] [-c certificate=ARN]
 */
import { App } from "aws-cdk-lib";
import { environment } from "../lib/config/environments.js";
import { EsploraStack } from "../lib/stack.js";

const app = new App();
const given = (name: string): string | undefined => app.node.tryGetContext(name);
const needed = (name: string): string => {
  const value = given(name);
  if (value === undefined) throw new Error(`-c ${name}=... is missing`);
  return value;
};

const name = needed("environment");
new EsploraStack(app, `PulseEsplora-${name}`, {
  environment: environment(name),
  version: needed("version"),
  artifactsBucket: needed("artifacts"),
  adminCidr: given("admin"),
  email: given("email"),
  certificateArn: given("certificate"),
  env: { account: process.env.CDK_DEFAULT_ACCOUNT, region: process.env.CDK_DEFAULT_REGION },
});
