mock_provider "aws" {}

variables {
  name                   = "pulse-test"
  scope                  = "CLOUDFRONT"
  region                 = "us-east-1"
  requests_per_5_minutes = 3000
}

run "one_address_is_limited_and_posts_more_so" {
  command = plan
  assert {
    condition = {
      for rule in aws_wafv2_web_acl.main.rule : rule.name => rule.statement[0].rate_based_statement[0].limit
      if startswith(rule.name, "rate-")
    } == { rate-all = 3000, rate-post = 600 }
    error_message = "3000 requests in five minutes, 600 of them POST"
  }
  assert {
    condition     = alltrue([for rule in aws_wafv2_web_acl.main.rule : rule.action[0].block[0].custom_response[0].response_code == 429 if startswith(rule.name, "rate-")])
    error_message = "who is too fast is told so with 429"
  }
}

run "large_transactions_pass" {
  command = plan
  assert {
    condition = contains(flatten([
      for rule in aws_wafv2_web_acl.main.rule : rule.statement[0].managed_rule_group_statement[0].rule_action_override[*].name
      if rule.name == "AWSManagedRulesCommonRuleSet"
    ]), "SizeRestrictions_BODY")
    error_message = "the managed limit of 8 KiB would refuse transactions"
  }
}

run "priorities_differ" {
  command = plan
  variables {
    blocked_countries = ["KP"]
  }
  assert {
    condition     = length(distinct([for rule in aws_wafv2_web_acl.main.rule : rule.priority])) == 6
    error_message = "each of the six rules has a place of its own"
  }
}

run "a_balancer_is_tied_to_its_firewall" {
  command = plan
  variables {
    scope        = "REGIONAL"
    region       = "us-east-2"
    balancer_arn = "arn:aws:elasticloadbalancing:us-east-2:123456789012:loadbalancer/app/a/1"
  }
  assert {
    condition     = length(aws_wafv2_web_acl_association.balancer) == 1
    error_message = "a firewall that nothing uses guards nothing"
  }
}

run "a_distribution_s_firewall_elsewhere_is_refused" {
  command = plan
  variables {
    region = "us-east-2"
  }
  expect_failures = [var.region]
}
