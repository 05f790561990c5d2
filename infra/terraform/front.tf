# What stands before the balancers: firewall, CDN, web app. The CDN and the app are the whole
# world's, so only the main site makes them; every site's balancer wants the CDN's secret.

locals {
  secret_header = "X-Origin-Secret"
  has_cdn       = local.env.cdn && local.is_main
  has_web_app   = local.env.web_app && local.is_main
  # Made once by hand (infra/docs/topologies.md), the same in every region; `new,old` while one is
  # replaced: the CDN sends the first, the balancers take both. Not below the path that nodes may
  # read.
  origin_secrets = local.env.cdn ? split(",", data.aws_ssm_parameter.origin_secret[0].value) : []
}

data "aws_ssm_parameter" "origin_secret" {
  count = local.env.cdn ? 1 : 0
  name  = "/${local.name}-cdn/origin-secret"
}

module "waf" {
  source                 = "./modules/waf"
  count                  = local.env.balancer && (!local.env.cdn || local.is_main) ? 1 : 0
  name                   = local.name
  scope                  = local.env.cdn ? "CLOUDFRONT" : "REGIONAL"
  region                 = local.env.cdn ? "us-east-1" : var.region
  requests_per_5_minutes = local.env.waf_requests_per_5_minutes
  blocked_countries      = local.env.blocked_countries
  balancer_arn           = one(module.alb_dns[*].balancer_arn)
}

module "cdn" {
  source        = "./modules/cdn"
  count         = local.has_cdn ? 1 : 0
  name          = local.name
  domain        = local.api_domain
  zone_id       = var.zone_id
  origin_domain = local.balancer_domain
  secret_header = local.secret_header
  origin_secret = local.origin_secrets[0]
  web_acl_arn   = module.waf[0].arn
}

module "web_app" {
  source      = "./modules/web-app"
  count       = local.has_web_app ? 1 : 0
  name        = local.name
  suffix      = data.aws_caller_identity.me.account_id
  domain      = local.web_domain
  api_domain  = local.api_domain
  zone_id     = var.zone_id
  web_acl_arn = module.waf[0].arn
  kms_key_arn = module.key.kms_key_arn
}
