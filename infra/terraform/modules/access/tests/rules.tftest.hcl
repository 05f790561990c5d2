mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "us-east-2" }
  }
  mock_data "aws_ec2_managed_prefix_list" {
    defaults = { id = "pl-1", entries = [{ cidr = "203.0.113.0/24", description = "" }] }
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
  archive_bucket_arn   = "arn:aws:s3:::archive"
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

run "behind_a_cdn_nobody_else_reaches_the_balancer" {
  command = plan
  variables {
    behind_cdn = true
  }
  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.https) == ["cdn", "health_checks"] && alltrue([for rule in aws_vpc_security_group_ingress_rule.https : rule.cidr_ipv4 == null && rule.prefix_list_id == "pl-1"])
    error_message = "HTTPS is open to the lists of AWS alone"
  }
  assert {
    condition     = length(aws_security_group.health_checks) == 1
    error_message = "both lists together have more rules than one group takes"
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.http) == 0
    error_message = "port 80 is closed"
  }
  assert {
    condition     = output.cdn_networks == ["203.0.113.0/24"]
    error_message = "the nodes learn which proxies to believe"
  }
}

run "a_node_tells_of_its_own_group_only" {
  command = plan
  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : statement.Resource if statement.Sid == "Lifecycle"
    ] == ["arn:aws:autoscaling:us-east-2:123456789012:autoScalingGroup:*:autoScalingGroupName/pulse-test-nodes"]
    error_message = "lifecycle actions are of this group"
  }
}

run "only_metrics_are_not_of_one_resource" {
  command = plan
  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : statement.Sid if contains(flatten([statement.Resource]), "*")
    ] == ["Metrics"]
    error_message = "every other statement names what it is about"
  }
}

run "a_node_adds_to_the_archive_and_removes_nothing" {
  command = plan
  assert {
    condition = sort(flatten([
      for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : statement.Action
      if contains(flatten([statement.Resource]), "arn:aws:s3:::archive/*")
    ])) == tolist(["s3:AbortMultipartUpload", "s3:PutObject"])
    error_message = "files of the archive are put there, and stay"
  }
  assert {
    condition = anytrue([
      for statement in jsondecode(aws_iam_role_policy.node.policy).Statement :
      contains(flatten([statement.Action]), "s3:ListBucket") && contains(flatten([statement.Resource]), "arn:aws:s3:::archive")
    ])
    error_message = "a node asks the archive how far it goes"
  }
}
