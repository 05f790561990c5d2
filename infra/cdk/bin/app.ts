/**
 * cdk deploy -c environment=dev -c blue=0.1.0 -c artifacts=BUCKET
 *     [-c admin=A.B.C.D/32] [-c email=...] [-c fallback=https://...]
 * where there is a balancer:
 *     -c domain=NAME (-c certificate=ARN | -c zone=ID -c zone_name=NAME)
 * for a cut-over (infra/README.md):
 *     [-c green=0.2.0] [-c live=blue|green] [-c blue_snapshot=ID] [-c green_snapshot=ID]
 */
import { App, Validations } from "aws-cdk-lib";
import { AwsSolutionsChecks } from "cdk-nag";
import { environment, type Slot, slots } from "../lib/config/environments.js";
import { EsploraStack } from "../lib/stack.js";

const app = new App();
const given = (name: string): string | undefined => app.node.tryGetContext(name);
const needed = (name: string): string => {
  const value = given(name);
  if (value === undefined) throw new Error(`-c ${name}=... is missing`);
  return value;
};
const slot = (name?: string): Slot | undefined => {
  const found = slots.find((known) => known === name);
  if (name !== undefined && found === undefined) throw new Error(`${name} is no slot: blue or green`);
  return found;
};

// Of no account and no region: the same template for all, made without asking AWS for zones.
const name = needed("environment");
const zone = given("zone");
new EsploraStack(app, `PulseEsplora-${name}`, {
  environment: environment(name),
  versions: { blue: given("blue"), green: given("green") },
  live: slot(given("live")),
  snapshots: { blue: given("blue_snapshot"), green: given("green_snapshot") },
  artifactsBucket: needed("artifacts"),
  adminCidr: given("admin"),
  email: given("email"),
  domain: given("domain"),
  certificateArn: given("certificate"),
  zone: zone === undefined ? undefined : { id: zone, name: needed("zone_name") },
  fallback: given("fallback"),
});
Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
