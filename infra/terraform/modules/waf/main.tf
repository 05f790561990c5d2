# Web application firewall: who is too fast, known for attacks, or from a blocked country.
#
# Order: countries, then rates, then the managed lists. What passes reaches the nodes, which
# have limits of their own (docs/api.md).
#
# No request is logged: logs would hold addresses of clients and of wallets. The metrics of
# each rule say what it blocks.

locals {
  # Bodies of POST /tx and of the bulk routes may have 1,000,000 bytes, and hex and JSON in
  # them look like anything: those rules only count.
  managed = {
    AWSManagedRulesAmazonIpReputationList = []
    AWSManagedRulesKnownBadInputsRuleSet  = []
    AWSManagedRulesCommonRuleSet          = ["SizeRestrictions_BODY", "CrossSiteScripting_BODY", "GenericLFI_BODY", "GenericRFI_BODY", "NoUserAgent_HEADER"]
  }
  managed_names = ["AWSManagedRulesAmazonIpReputationList", "AWSManagedRulesKnownBadInputsRuleSet", "AWSManagedRulesCommonRuleSet"]
  # Requests that cost much: what is posted, and pages of histories.
  rates = {
    all  = { limit = var.requests_per_5_minutes, post_only = false }
    post = { limit = max(floor(var.requests_per_5_minutes / 5), 10), post_only = true }
  }
}

resource "aws_wafv2_web_acl" "main" {
  #checkov:skip=CKV_AWS_192:KnownBadInputs is in the table above, which only the plan unfolds
  region = var.region
  name   = var.name
  scope  = var.scope

  default_action {
    allow {}
  }

  dynamic "rule" {
    for_each = length(var.blocked_countries) > 0 ? [var.blocked_countries] : []
    content {
      name     = "countries"
      priority = 0
      action {
        block {}
      }
      statement {
        geo_match_statement {
          country_codes = rule.value
        }
      }
      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = "${var.name}-countries"
        sampled_requests_enabled   = false
      }
    }
  }

  dynamic "rule" {
    for_each = local.rates
    content {
      name     = "rate-${rule.key}"
      priority = rule.value.post_only ? 1 : 2
      action {
        block {
          custom_response {
            response_code = 429
            response_header {
              name  = "Retry-After"
              value = "60"
            }
          }
        }
      }
      statement {
        rate_based_statement {
          limit              = rule.value.limit
          aggregate_key_type = "IP"
          dynamic "scope_down_statement" {
            for_each = rule.value.post_only ? ["POST"] : []
            content {
              byte_match_statement {
                search_string         = scope_down_statement.value
                positional_constraint = "EXACTLY"
                field_to_match {
                  method {}
                }
                text_transformation {
                  priority = 0
                  type     = "NONE"
                }
              }
            }
          }
        }
      }
      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = "${var.name}-rate-${rule.key}"
        sampled_requests_enabled   = false
      }
    }
  }

  dynamic "rule" {
    for_each = local.managed
    content {
      name     = rule.key
      priority = 10 + index(local.managed_names, rule.key)
      override_action {
        none {}
      }
      statement {
        managed_rule_group_statement {
          vendor_name = "AWS"
          name        = rule.key
          dynamic "rule_action_override" {
            for_each = rule.value
            content {
              name = rule_action_override.value
              action_to_use {
                count {}
              }
            }
          }
        }
      }
      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = "${var.name}-${rule.key}"
        sampled_requests_enabled   = false
      }
    }
  }

  visibility_config {
    cloudwatch_metrics_enabled = true
    metric_name                = var.name
    sampled_requests_enabled   = false
  }
}

# A distribution names its firewall itself; a balancer is tied to it here.
resource "aws_wafv2_web_acl_association" "balancer" {
  count        = var.scope == "REGIONAL" ? 1 : 0
  resource_arn = var.balancer_arn
  web_acl_arn  = aws_wafv2_web_acl.main.arn
}
