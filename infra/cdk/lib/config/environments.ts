/** The numbers of infra/environments.json, typed. */
import { readFileSync } from "node:fs";

/** One environment of the self-hosted stack. */
export interface Environment {
  readonly name: string;
  readonly network: string;
  readonly instanceType: string;
  /** Most to pay per hour in USD; null is no spot instance. */
  readonly spotMaxPrice: string | null;
  readonly volumeGb: number;
  readonly balancer: boolean;
  /** Days that daily snapshots of the volume are kept; 0 makes none. */
  readonly keepSnapshotsDays: number;
  /** What a month may cost, in USD. */
  readonly budgetUsd: number;
  /** Esplora API whose height is compared with ours. */
  readonly publicApi: string;
}

/**
 * The two places for a node. One is live; during a cut-over the other runs the next
 * version beside it.
 */
export type Slot = "blue" | "green";
export const slots: readonly Slot[] = ["blue", "green"];

const shared = JSON.parse(
  readFileSync(new URL("../../../environments.json", import.meta.url), "utf8"),
);

/** Port on which the node serves the API here. */
export const publicPort: number = shared.self_hosted.public_port;
/** Paths of the node's answers. */
export const paths: { ready: string; live: string; tip: string } = shared.paths;
/** Where things lie on an instance. */
export const instance: { data_volume: string } = shared.instance;
/** When a cut-over is rolled back. */
export const cutover: {
  errors_percent: number; p95_secs: number; lag_blocks: number;
} = shared.self_hosted.cutover;
/** What the service promises. */
export const acceptance: { uptime_percent: number } = shared.self_hosted.acceptance;

/** @throws if there is no environment of this name. */
export function environment(name: string): Environment {
  const found = shared.self_hosted[name];
  if (found?.instance_type === undefined) {
    throw new Error(`no environment ${name}: dev, staging or production`);
  }
  return {
    name,
    network: found.network,
    instanceType: found.instance_type,
    spotMaxPrice: found.spot_max_price,
    volumeGb: found.volume_gb,
    balancer: found.balancer,
    keepSnapshotsDays: found.keep_snapshots_days,
    budgetUsd: found.budget_usd,
    publicApi: found.public_api,
  };
}
