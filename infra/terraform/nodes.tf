# The nodes, and what routes to them. With Kubernetes the nodes are pods (infra/kubernetes)
# behind the same balancer.

locals {
  # What user-data.sh reads. No secrets: they come from SSM by the instance's role.
  settings = merge(
    {
      SETUP_NAME         = local.name
      SETUP_ARTIFACTS    = module.storage.buckets.artifacts
      SETUP_VERSION      = var.node_version
      SETUP_NETWORK      = local.env.network
      SETUP_SNAPSHOTS    = "s3://${module.storage.buckets.snapshots}/${local.env.network}"
      SETUP_ARCHIVE      = "s3://${module.storage.buckets.archive}/${local.env.network}"
      SETUP_SECRETS      = local.secrets
      SETUP_LOG_GROUP    = module.observability.log_group
      SETUP_ALARM_TOPIC  = module.observability.alarm_topic_arn
      AWS_DEFAULT_REGION = var.region
      # The balancers, the CDN, and a tunnel's end on the machine itself.
      PULSE_HTTP__TRUSTED_PROXIES = join(",", concat(["127.0.0.1/32", module.network.cidr], module.access.cdn_networks))
    },
    # One of a group's nodes makes the day's snapshot, and sends the week's blocks.
    local.has_group ? {
      SETUP_GROUP                = "${local.name}-nodes"
      SETUP_SNAPSHOTS_APART_SECS = "64800"
      SETUP_ARCHIVE_APART_SECS   = "86400"
    } : {},
    local.env.tunnel ? { SETUP_TUNNEL = var.cloudflared_version } : {},
    local.env.shared_snapshots ? { SETUP_SHARED = module.shared_snapshots[0].mount } : {},
  )
  settings_text = join("", concat(
    ["#!/bin/bash\n"],
    [for key, value in local.settings : "export ${key}='${value}'\n"],
  ))
  user_data = file("${path.module}/../instance/user-data.sh")
}

module "alb_dns" {
  source            = "./modules/alb-dns"
  count             = local.env.balancer ? 1 : 0
  name              = local.name
  region            = var.region
  vpc_id            = module.network.vpc_id
  subnets           = module.network.public_subnets
  security_groups   = module.access.balancer_security_groups
  domain            = local.balancer_domain
  zone_id           = var.zone_id
  geolocation       = var.geolocation
  http_port         = local.ports.http
  target_type       = local.has_kubernetes ? "ip" : "instance"
  health_path       = local.shared.paths.ready
  stop_timeout_secs = local.instance.stop_timeout_secs
  behind_cdn        = local.env.cdn
  secret_header     = local.secret_header
  origin_secrets    = local.origin_secrets
  protected         = local.is_protected
}

module "nlb" {
  source            = "./modules/nlb"
  count             = local.env.balancer && local.has_group ? 1 : 0
  name              = local.name
  vpc_id            = module.network.vpc_id
  subnets           = module.network.public_subnets
  electrum_port     = local.ports.electrum_tls
  p2p_port          = local.ports.p2p
  http_port         = local.ports.http
  health_path       = local.shared.paths.ready
  stop_timeout_secs = local.instance.stop_timeout_secs
  protected         = local.is_protected
}

module "shared_snapshots" {
  source              = "./modules/shared-snapshots"
  count               = local.env.shared_snapshots ? 1 : 0
  name                = local.name
  vpc_id              = module.network.vpc_id
  subnets             = local.has_single ? module.network.public_subnets : module.network.private_subnets
  node_security_group = module.access.node_security_group
  node_role_arn       = module.access.node_role_arn
  user_id             = local.instance.user_id
  kms_key_arn         = module.key.kms_key_arn
}

module "group" {
  source            = "./modules/node-asg"
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
  balancer          = local.balancer
  user_data         = "${local.settings_text}export SETUP_DATA_DEVICE=/dev/sdf\n${local.user_data}"
  kms_key_arn       = module.key.kms_key_arn
  stop_timeout_secs = local.instance.stop_timeout_secs
}

module "single" {
  source             = "./modules/node-single"
  count              = local.has_single ? 1 : 0
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

locals {
  # Where losing something by mistake would hurt.
  is_protected = local.env.network == "mainnet"
  balancer = local.env.balancer ? {
    arn_suffix          = module.alb_dns[0].arn_suffix
    target_group_suffix = module.alb_dns[0].target_group_suffix
  } : null
}
