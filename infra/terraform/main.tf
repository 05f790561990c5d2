# One environment, whole. What differs between environments stands in
# infra/environments.json; what is a team's own in envs/ENVIRONMENT.tfvars.
#
#   main.tf     settings, key, network, buckets, logs, rights
#   nodes.tf    the nodes, as one machine or a group, and the balancers
#   front.tf    CDN, firewall, web app
#   platform.tf Kubernetes and the data tier
#   watch.tf    check from outside, alarms, backups, budget

locals {
  shared   = jsondecode(file("${path.module}/../environments.json"))
  env      = merge(local.shared.defaults, local.shared.environments[var.environment])
  ports    = local.shared.ports
  instance = local.shared.instance
  # A further region of the same environment has names of its own, because roles are global.
  name     = var.site == "" ? "pulse-${var.environment}" : "pulse-${var.environment}-${var.site}"
  is_main  = var.site == ""
  secrets  = "/${local.name}"
  has_away = length(local.env.away_buckets) > 0

  has_kubernetes = local.env.kubernetes != null
  # One node is a machine with an address; more are a group.
  has_group  = local.env.nodes[1] > 1
  has_single = local.env.nodes[1] == 1

  api_domain = var.domain
  web_domain = var.web_domain
  # Behind a CDN the balancers have a name of their own.
  balancer_domain = local.env.cdn && var.domain != null ? "origin.${var.domain}" : var.domain
  url = (
    local.env.balancer || local.env.tunnel ? "https://${var.domain}" :
    local.has_single ? "http://${module.single[0].address}:${local.ports.http}" : null
  )
}

data "aws_caller_identity" "me" {}

module "key" {
  source = "./modules/key"
  name   = local.name
  region = var.region
}

module "key_away" {
  source = "./modules/key"
  count  = local.has_away ? 1 : 0
  name   = "${local.name}-away"
  region = var.away_region
}

module "network" {
  source              = "./modules/network"
  name                = local.name
  zones               = local.has_single ? local.env.zones : max(local.env.zones, 2)
  private_nodes       = !local.has_single
  nat_per_zone        = local.env.zones == 3
  interface_endpoints = local.has_kubernetes ? ["ecr.api", "ecr.dkr", "eks", "eks-auth", "logs", "secretsmanager", "ssm", "sts"] : []
  kms_key_arn         = module.key.kms_key_arn
}

module "storage" {
  source           = "./modules/storage"
  name             = local.name
  suffix           = data.aws_caller_identity.me.account_id
  kms_key_arn      = module.key.kms_key_arn
  away_buckets     = local.env.away_buckets
  away_region      = var.away_region
  away_kms_key_arn = one(module.key_away[*].kms_key_arn)
}

module "observability" {
  source      = "./modules/observability"
  name        = local.name
  emails      = var.alarm_emails
  kms_key_arn = module.key.kms_key_arn
}

module "access" {
  source               = "./modules/access"
  name                 = local.name
  vpc_id               = module.network.vpc_id
  vpc_cidr             = module.network.cidr
  ports                = local.ports
  ssh_from             = var.ssh_from
  http_from            = local.has_single && !local.env.tunnel ? var.http_from : []
  behind_cdn           = local.env.cdn
  artifacts_bucket_arn = module.storage.arns.artifacts
  snapshots_bucket_arn = module.storage.arns.snapshots
  archive_bucket_arn   = module.storage.arns.archive
  secrets_path         = local.secrets
  kms_key_arn          = module.key.kms_key_arn
  log_group_arn        = module.observability.log_group_arn
  alarm_topic_arn      = module.observability.alarm_topic_arn
}
