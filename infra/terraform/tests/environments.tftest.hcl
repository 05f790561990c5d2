# Plans of all environments, and what must hold in them. No account is asked.

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
    defaults = { insecure_value = "ami-0123456789abcdef0", value = "new,old" }
  }
  mock_data "aws_subnet" {
    defaults = { availability_zone = "us-east-2a" }
  }
  mock_data "aws_ec2_managed_prefix_list" {
    defaults = { id = "pl-1", entries = [{ cidr = "203.0.113.0/24", description = "" }] }
  }
}

mock_provider "archive" {}

variables {
  node_version = "1.2.3"
  domain       = "api.pulse.example.com"
  web_domain   = "pulse.example.com"
  zone_id      = "Z0123456789"
  alarm_emails = ["ops@example.com"]
}

run "dev_is_one_small_node" {
  command = plan
  variables {
    environment = "dev"
    domain      = null
    web_domain  = null
  }
  assert {
    condition     = length(module.single) == 1 && length(module.group) == 0 && length(module.alb_dns) == 0 && length(module.health_check) == 0
    error_message = "dev is one node without a balancer"
  }
  assert {
    condition     = length(module.network.public_subnets) == 1 && length(module.backup) == 1
    error_message = "dev stands in one zone, and its volume is backed up"
  }
  assert {
    condition     = local.settings.SETUP_ARCHIVE == "s3://${module.storage.buckets.archive}/testnet4" && !contains(keys(local.settings), "SETUP_ARCHIVE_APART_SECS")
    error_message = "the only node sends the archive"
  }
}

run "staging_stands_behind_balancers_and_a_firewall" {
  command = plan
  variables {
    environment = "staging"
  }
  assert {
    condition     = length(module.group) == 1 && length(module.alb_dns) == 1 && length(module.nlb) == 1 && length(module.waf) == 1 && length(module.cdn) == 0
    error_message = "staging is a group behind balancers"
  }
  assert {
    condition     = length(module.key_away) == 0
    error_message = "only what is worth it is copied to another region"
  }
  assert {
    condition     = contains(keys(local.settings), "SETUP_ARCHIVE") && local.settings.SETUP_ARCHIVE_APART_SECS == "86400" && local.settings.SETUP_GROUP == "pulse-staging-nodes"
    error_message = "one node of a group sends the archive"
  }
  assert {
    condition     = output.url == "https://api.pulse.example.com"
    error_message = "clients use HTTPS"
  }
}

run "production_stands_behind_a_cdn_in_three_zones" {
  command = plan
  variables {
    environment = "production"
  }
  assert {
    condition     = length(module.network.private_subnets) == 3 && length(module.cdn) == 1 && length(module.web_app) == 1
    error_message = "three zones, a CDN and the web app"
  }
  assert {
    condition     = local.balancer_domain == "origin.api.pulse.example.com"
    error_message = "the balancers have a name behind the CDN's"
  }
  assert {
    condition     = length(module.key_away) == 1 && length(module.eks) == 0 && length(module.data_tier) == 0
    error_message = "copies away, and nothing that nobody asked for"
  }
  assert {
    condition     = local.settings.PULSE_HTTP__TRUSTED_PROXIES == "127.0.0.1/32,10.0.0.0/16,203.0.113.0/24"
    error_message = "nodes believe the balancers and the CDN about addresses"
  }
}

run "a_further_region_shares_the_cdn" {
  command = plan
  variables {
    environment = "production"
    site        = "eu"
    region      = "eu-central-1"
  }
  assert {
    condition     = length(module.cdn) == 0 && length(module.waf) == 0 && length(module.web_app) == 0 && length(module.alb_dns) == 1
    error_message = "a balancer of its own, the CDN of all"
  }
  assert {
    condition     = local.name == "pulse-production-eu"
    error_message = "names are its own"
  }
}

run "explorer_has_three_nodes_and_a_data_tier" {
  command = plan
  variables {
    environment = "explorer"
  }
  assert {
    condition     = local.env.nodes == [3, 3] && length(module.data_tier) == 1 && local.env.data_tier.read_replicas == 1
    error_message = "three nodes, a database with a replica, a cache"
  }
}

run "bridge_runs_in_kubernetes" {
  command = plan
  variables {
    environment = "bridge"
  }
  assert {
    condition     = length(module.eks) == 1 && length(module.group) == 0 && length(module.single) == 0 && length(module.nlb) == 0 && length(module.data_tier) == 1
    error_message = "nodes are pods"
  }
  assert {
    condition     = contains(local.env.away_buckets, "snapshots")
    error_message = "four hours to recover in another region need snapshots there"
  }
}

run "fleet_shares_snapshots" {
  command = plan
  variables {
    environment = "fleet"
  }
  assert {
    condition     = length(module.shared_snapshots) == 1 && length(module.nlb) == 1 && local.env.nodes == [2, 10]
    error_message = "two to ten nodes that start from a shared file system"
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
    environment  = "staging"
    node_version = "latest; rm -rf /"
  }
  expect_failures = [var.node_version]
}

run "a_balancer_without_a_name_is_refused" {
  command = plan
  variables {
    environment = "staging"
    domain      = null
  }
  expect_failures = [var.domain]
}
