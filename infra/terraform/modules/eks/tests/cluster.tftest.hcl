mock_provider "aws" {}

variables {
  name                    = "pulse-test"
  kubernetes_version      = "1.33"
  subnets                 = ["subnet-1", "subnet-2", "subnet-3"]
  instance_type           = "m6a.2xlarge"
  nodes_per_zone          = [1, 3]
  spot_instance_types     = ["m6a.xlarge", "m6i.xlarge"]
  balancer_security_group = "sg-1"
  target_group            = "arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/a/1"
  http_port               = 8080
  snapshots_bucket_arn    = "arn:aws:s3:::snapshots"
  kms_key_arn             = "arn:aws:kms:us-east-2:123456789012:key/1"
}

run "each_zone_grows_by_itself" {
  command = plan
  assert {
    condition = { for key, group in aws_eks_node_group.zone : key => length(group.subnet_ids) } == {
      zone-1 = 1, zone-2 = 1, zone-3 = 1, spot = 3,
    }
    error_message = "a pod's volume stays in its zone"
  }
  assert {
    condition     = one(aws_eks_node_group.zone["spot"].taint).effect == "NO_SCHEDULE" && length(aws_eks_node_group.zone["zone-1"].taint) == 0
    error_message = "only what may be interrupted runs on spot"
  }
}

run "rights_come_from_entries_alone" {
  command = plan
  variables {
    admin_roles  = ["arn:aws:iam::123456789012:role/deploy"]
    viewer_roles = ["arn:aws:iam::123456789012:role/support"]
  }
  assert {
    condition     = aws_eks_cluster.main.access_config[0].authentication_mode == "API" && aws_eks_cluster.main.vpc_config[0].endpoint_public_access == false
    error_message = "no rights by making it, no API from the Internet"
  }
  assert {
    condition = { for key, entry in aws_eks_access_policy_association.person : key => entry.policy_arn } == {
      "arn:aws:iam::123456789012:role/deploy"  = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
      "arn:aws:iam::123456789012:role/support" = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
    }
    error_message = "administrators and viewers differ"
  }
}

run "network_policies_are_enforced_and_secrets_encrypted" {
  command = plan
  assert {
    condition     = jsondecode(aws_eks_addon.this["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "policies that nobody enforces protect nothing"
  }
  assert {
    condition     = contains(aws_eks_cluster.main.encryption_config[0].resources, "secrets")
    error_message = "secrets are encrypted with our key"
  }
}

run "pods_reach_only_what_is_theirs" {
  command = plan
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.pod["pulse-node"].policy).Statement : !contains(statement.Resource, "*")
    ])
    error_message = "a node reads and writes snapshots, nothing else"
  }
}

run "an_api_for_everybody_is_refused" {
  command = plan
  variables {
    api_from = ["0.0.0.0/0"]
  }
  expect_failures = [var.api_from]
}
