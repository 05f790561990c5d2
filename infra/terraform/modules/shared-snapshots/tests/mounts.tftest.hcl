mock_provider "aws" {
  mock_resource "aws_efs_file_system" {
    defaults = { id = "fs-1", arn = "arn:aws:elasticfilesystem:us-east-2:123456789012:file-system/fs-1" }
  }
  mock_resource "aws_efs_access_point" {
    defaults = { id = "fsap-1", arn = "arn:aws:elasticfilesystem:us-east-2:123456789012:access-point/fsap-1" }
  }
}

variables {
  name                = "pulse-test"
  vpc_id              = "vpc-1"
  subnets             = ["subnet-1", "subnet-2", "subnet-3"]
  node_security_group = "sg-1"
  node_role_arn       = "arn:aws:iam::123456789012:role/pulse-test-node"
  user_id             = 10001
  kms_key_arn         = "arn:aws:kms:us-east-2:123456789012:key/1"
}

run "every_zone_mounts_it" {
  command = apply
  assert {
    condition     = length(aws_efs_mount_target.zone) == 3 && output.mount == "fs-1:fsap-1"
    error_message = "a mount target in each zone"
  }
}

run "only_nodes_read_it_and_over_tls" {
  command = apply
  assert {
    condition = [
      for statement in jsondecode(aws_efs_file_system_policy.nodes.policy).Statement : statement.Principal.AWS if statement.Effect == "Allow"
    ] == ["arn:aws:iam::123456789012:role/pulse-test-node"]
    error_message = "nobody but the nodes"
  }
  assert {
    condition     = aws_efs_file_system.snapshots.encrypted == true && aws_efs_access_point.snapshots.posix_user[0].uid == 10001
    error_message = "encrypted, and as the service's user"
  }
}

run "what_is_not_read_for_a_week_gets_cheap" {
  command = plan
  assert {
    condition     = contains(compact(aws_efs_file_system.snapshots.lifecycle_policy[*].transition_to_ia), "AFTER_7_DAYS")
    error_message = "old snapshots move to infrequent access"
  }
}
