mock_provider "aws" {
  mock_data "aws_ssm_parameter" {
    defaults = { insecure_value = "ami-0123456789abcdef0" }
  }
}

variables {
  name              = "pulse-test"
  nodes             = [2, 10]
  instance_type     = "m6a.xlarge"
  spot              = false
  volume_gb         = 1600
  subnets           = ["subnet-1", "subnet-2"]
  security_group    = "sg-1"
  instance_profile  = "profile"
  target_groups     = ["arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/a/1"]
  user_data         = "#!/bin/bash"
  kms_key_arn       = "arn:aws:kms:us-east-2:123456789012:key/1"
  stop_timeout_secs = 60
}

run "a_syncing_node_is_not_replaced" {
  command = plan
  assert {
    condition     = aws_autoscaling_group.nodes.health_check_type == "EC2"
    error_message = "the group must not replace by the balancer's health check: a first sync would never end"
  }
  assert {
    condition     = tonumber(aws_autoscaling_group.nodes.default_instance_warmup) >= 3600
    error_message = "nodes that sync must not count in scaling"
  }
}

run "nodes_have_time_to_drain" {
  command = plan
  assert {
    condition     = aws_autoscaling_lifecycle_hook.drain.heartbeat_timeout > var.stop_timeout_secs
    error_message = "the machine must outlive the node's stop"
  }
}

run "volumes_are_encrypted_and_metadata_needs_tokens" {
  command = plan
  assert {
    condition     = alltrue([for device in aws_launch_template.node.block_device_mappings : device.ebs[0].encrypted == "true"])
    error_message = "all volumes are encrypted"
  }
  assert {
    condition     = aws_launch_template.node.metadata_options[0].http_tokens == "required"
    error_message = "IMDSv2 only"
  }
}

run "more_than_ten_nodes_are_refused" {
  command = plan
  variables {
    nodes = [2, 11]
  }
  expect_failures = [var.nodes]
}
