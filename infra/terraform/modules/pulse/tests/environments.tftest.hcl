# Plans of the three environments, and what must hold in them. No account is asked.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-2a", "us-east-2b", "us-east-2c"] }
  }
  mock_data "aws_region" {
    defaults = { region = "us-east-2" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_ssm_parameter" {
    defaults = { insecure_value = "ami-0123456789abcdef0" }
  }
  mock_data "aws_subnet" {
    defaults = { availability_zone = "us-east-2a" }
  }
}

mock_provider "aws" {
  alias = "away"
  mock_data "aws_region" {
    defaults = { region = "us-west-2" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

variables {
  region       = "us-east-2"
  node_version = "1.2.3"
  domain       = "api.pulse.example.com"
  zone_id      = "Z0123456789"
  alarm_emails = ["ops@example.com"]
}

run "dev_is_one_small_node" {
  command = plan
  variables {
    environment = "dev"
  }
  assert {
    condition     = length(module.single) == 1 && length(module.group) == 0 && length(module.alb_dns) == 0
    error_message = "dev is one node without a balancer"
  }
  assert {
    condition     = length(module.network.public_subnets) == 1
    error_message = "dev stands in one zone"
  }
}

run "staging_stands_behind_a_balancer" {
  command = plan
  variables {
    environment = "staging"
  }
  assert {
    condition     = length(module.group) == 1 && length(module.alb_dns) == 1 && length(module.nlb) == 1
    error_message = "staging is a group behind balancers"
  }
  assert {
    condition     = length(module.key_away) == 0
    error_message = "only production is copied to another region"
  }
}

run "production_spreads_over_three_zones" {
  command = plan
  variables {
    environment = "production"
  }
  assert {
    condition     = length(module.network.private_subnets) == 3
    error_message = "production stands in three zones"
  }
  assert {
    condition     = length(module.key_away) == 1
    error_message = "production's backups are copied to another region"
  }
  assert {
    condition     = output.url == "https://api.pulse.example.com"
    error_message = "clients use HTTPS"
  }
}

run "an_unknown_environment_is_refused" {
  command = plan
  variables {
    environment = "test"
  }
  expect_failures = [var.environment]
}

run "a_version_that_is_none_is_refused" {
  command = plan
  variables {
    environment  = "dev"
    node_version = "latest; rm -rf /"
  }
  expect_failures = [var.node_version]
}
