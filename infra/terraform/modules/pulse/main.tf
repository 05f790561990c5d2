# One environment, whole: what differs between environments stands in environments.json.

locals {
  shared   = jsondecode(file("${path.module}/../../../environments.json"))
  env      = local.shared.environments[var.environment]
  ports    = local.shared.ports
  instance = local.shared.instance
  name     = "pulse-${var.environment}"
  secrets  = "/${local.name}"
  # One node is a machine with an address; more are a group.
  has_group = local.env.nodes[1] > 1

  # What user-data.sh reads. No secrets: they come from SSM by the instance's role.
  settings = {
    SETUP_ARTIFACTS   = module.storage.buckets.artifacts
    SETUP_VERSION     = var.node_version
    SETUP_NETWORK     = local.env.network
    SETUP_SNAPSHOTS   = "s3://${module.storage.buckets.snapshots}/${local.env.network}"
    SETUP_SECRETS     = local.secrets
    SETUP_LOG_GROUP   = module.observability.log_group
    SETUP_ALARM_TOPIC = module.observability.alarm_topic_arn
  }
  settings_text = join("", concat(
    ["#!/bin/bash\n"],
    [for key, value in local.settings : "export ${key}='${value}'\n"],
  ))
  user_data = file("${path.module}/../../../instance/user-data.sh")
}

data "aws_caller_identity" "me" {}

module "key" {
  source = "../key"
  name   = local.name
}

module "network" {
  source        = "../network"
  name          = local.name
  zones         = local.has_group ? max(local.env.zones, 2) : local.env.zones
  private_nodes = local.has_group
  nat_per_zone  = local.env.zones == 3
  kms_key_arn   = module.key.kms_key_arn
}

module "storage" {
  source      = "../storage"
  name        = local.name
  suffix      = data.aws_caller_identity.me.account_id
  kms_key_arn = module.key.kms_key_arn
}

module "observability" {
  source      = "../observability"
  name        = local.name
  emails      = var.alarm_emails
  kms_key_arn = module.key.kms_key_arn
}

module "access" {
  source               = "../access"
  name                 = local.name
  vpc_id               = module.network.vpc_id
  vpc_cidr             = module.network.cidr
  ports                = local.ports
  ssh_from             = var.ssh_from
  artifacts_bucket_arn = module.storage.arns.artifacts
  snapshots_bucket_arn = module.storage.arns.snapshots
  secrets_path         = local.secrets
  kms_key_arn          = module.key.kms_key_arn
  log_group_arn        = module.observability.log_group_arn
  alarm_topic_arn      = module.observability.alarm_topic_arn
}

module "alb_dns" {
  source            = "../alb-dns"
  count             = local.env.balancer ? 1 : 0
  name              = local.name
  region            = var.region
  vpc_id            = module.network.vpc_id
  subnets           = module.network.public_subnets
  security_group    = module.access.balancer_security_group
  domain            = var.domain
  zone_id           = var.zone_id
  http_port         = local.ports.http
  health_path       = local.shared.paths.ready
  stop_timeout_secs = local.instance.stop_timeout_secs
  protected         = var.environment == "production"
}

module "nlb" {
  source            = "../nlb"
  count             = local.env.balancer ? 1 : 0
  name              = local.name
  vpc_id            = module.network.vpc_id
  subnets           = module.network.public_subnets
  electrum_port     = local.ports.electrum_tls
  p2p_port          = local.ports.p2p
  http_port         = local.ports.http
  health_path       = local.shared.paths.ready
  stop_timeout_secs = local.instance.stop_timeout_secs
  protected         = var.environment == "production"
}

module "group" {
  source            = "../node-asg"
  count             = local.has_group ? 1 : 0
  name              = local.name
  nodes             = local.env.nodes
  instance_type     = local.env.instance_type
  spot              = local.env.spot
  volume_gb         = local.env.volume_gb
  subnets           = module.network.private_subnets
  security_group    = module.access.node_security_group
  instance_profile  = module.access.instance_profile
  target_groups     = concat(module.alb_dns[*].target_group, flatten(module.nlb[*].target_groups))
  user_data         = "${local.settings_text}export SETUP_DATA_DEVICE=/dev/sdf\n${local.user_data}"
  kms_key_arn       = module.key.kms_key_arn
  stop_timeout_secs = local.instance.stop_timeout_secs
}

module "single" {
  source             = "../node-single"
  count              = local.has_group ? 0 : 1
  name               = local.name
  instance_type      = local.env.instance_type
  spot               = local.env.spot
  volume_gb          = local.env.volume_gb
  subnet             = module.network.public_subnets[0]
  security_group     = module.access.node_security_group
  instance_profile   = module.access.instance_profile
  user_data_settings = local.settings_text
  user_data          = local.user_data
  kms_key_arn        = module.key.kms_key_arn
}

module "alarms" {
  source       = "../alarms"
  name         = local.name
  region       = var.region
  has_group    = local.has_group
  has_balancer = local.env.balancer
  group        = one(module.group[*].group)
  instance_id  = one(module.single[*].instance_id)
  balancer = local.env.balancer ? {
    arn_suffix          = module.alb_dns[0].arn_suffix
    target_group_suffix = module.alb_dns[0].target_group_suffix
  } : null
  data_volume     = local.instance.data_volume
  log_group       = module.observability.log_group
  alarm_topic_arn = module.observability.alarm_topic_arn
}

module "backup" {
  source           = "../backup"
  name             = local.name
  copy_away        = var.environment == "production"
  kms_key_arn      = module.key.kms_key_arn
  away_kms_key_arn = var.environment == "production" ? module.key_away[0].kms_key_arn : null
  providers = {
    aws      = aws
    aws.away = aws.away
  }
}

module "key_away" {
  source = "../key"
  count  = var.environment == "production" ? 1 : 0
  name   = "${local.name}-away"
  providers = {
    aws = aws.away
  }
}

resource "aws_budgets_budget" "month" {
  name         = local.name
  budget_type  = "COST"
  limit_amount = tostring(local.env.budget_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  cost_filter {
    name   = "TagKeyValue"
    values = [format("user:environment$%s", var.environment)]
  }

  dynamic "notification" {
    for_each = length(var.alarm_emails) > 0 ? [80, 100] : []
    content {
      comparison_operator        = "GREATER_THAN"
      threshold                  = notification.value
      threshold_type             = "PERCENTAGE"
      notification_type          = notification.value == 100 ? "FORECASTED" : "ACTUAL"
      subscriber_email_addresses = var.alarm_emails
    }
  }
}
