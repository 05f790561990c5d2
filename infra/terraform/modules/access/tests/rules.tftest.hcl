mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "us-east-2" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

variables {
  name                 = "pulse-test"
  vpc_id               = "vpc-1"
  vpc_cidr             = "10.0.0.0/16"
  ports                = { http = 8080, ops = 9090, electrum_tls = 50002, p2p = 8333, fleet = 4001 }
  artifacts_bucket_arn = "arn:aws:s3:::artifacts"
  snapshots_bucket_arn = "arn:aws:s3:::snapshots"
  secrets_path         = "/pulse-test"
  kms_key_arn          = "arn:aws:kms:us-east-2:123456789012:key/1"
  log_group_arn        = "arn:aws:logs:us-east-2:123456789012:log-group:/pulse/test/nodes"
  alarm_topic_arn      = "arn:aws:sns:us-east-2:123456789012:alarms"
}

run "only_wallets_and_peers_reach_a_node_from_outside" {
  command = plan
  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.node_public : rule.from_port]) == toset([8333, 50002])
    error_message = "P2P and Electrum are public, nothing else"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.ops.cidr_ipv4 == "10.0.0.0/16"
    error_message = "metrics are read from inside only"
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.ssh) == 0
    error_message = "SSH is closed unless asked for"
  }
}

run "ssh_from_everywhere_is_refused" {
  command = plan
  variables {
    ssh_from = ["0.0.0.0/0"]
  }
  expect_failures = [var.ssh_from]
}
