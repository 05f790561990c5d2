# Who looks, who is told, and what is kept.

locals {
  # From outside there is something to ask where there is HTTPS.
  has_check = local.env.balancer || local.env.tunnel
}

module "health_check" {
  source      = "./modules/health-check"
  count       = local.has_check ? 1 : 0
  name        = local.name
  node_url    = local.url
  public_api  = local.env.public_api
  kms_key_arn = module.key.kms_key_arn
}

module "alarms" {
  source          = "./modules/alarms"
  name            = local.name
  region          = var.region
  has_group       = local.has_group
  has_instance    = local.has_single
  has_balancer    = local.env.balancer
  has_check       = local.has_check
  has_file_system = local.env.shared_snapshots
  group           = one(module.group[*].group)
  instance_id     = one(module.single[*].instance_id)
  balancer        = local.balancer
  file_system_id  = one(module.shared_snapshots[*].file_system_id)
  data_volume     = local.instance.data_volume
  log_group       = module.observability.log_group
  alarm_topic_arn = module.observability.alarm_topic_arn
}

# EBS snapshots of a single node's volume. Volumes of a group are not kept: a new node starts
# from a snapshot in S3.
module "backup" {
  source           = "./modules/backup"
  count            = local.has_single ? 1 : 0
  name             = local.name
  copy_away        = local.has_away
  away_region      = var.away_region
  kms_key_arn      = module.key.kms_key_arn
  away_kms_key_arn = one(module.key_away[*].kms_key_arn)
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
