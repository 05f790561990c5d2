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
  balancer          = { arn_suffix = "app/a/1", target_group_suffix = "targetgroup/a/1" }
}

run "a_syncing_node_is_not_replaced" {
  command = plan
  assert {
    condition     = aws_autoscaling_group.nodes.health_check_type == "EC2"
    error_message = "the group must not replace by the balancer's health check: a first sync would never end"
  }
  assert {
    condition = {
      for hook in aws_autoscaling_group.nodes.initial_lifecycle_hook : hook.name => hook.lifecycle_transition
    } == { serving = "autoscaling:EC2_INSTANCE_LAUNCHING", drain = "autoscaling:EC2_INSTANCE_TERMINATING" }
    error_message = "an instance is in service when its node serves, and drains before it goes"
  }
  assert {
    condition     = aws_autoscaling_group.nodes.wait_for_capacity_timeout == "0"
    error_message = "applying would wait for a first sync, and fail"
  }
}

run "nodes_have_time_to_drain" {
  command = plan
  assert {
    condition     = alltrue([for hook in aws_autoscaling_group.nodes.initial_lifecycle_hook : tonumber(hook.heartbeat_timeout) > var.stop_timeout_secs])
    error_message = "the machine must outlive the node's stop"
  }
}

run "out_above_70_for_5_minutes_in_below_30_for_10" {
  command = plan
  assert {
    condition = { for key, alarm in aws_cloudwatch_metric_alarm.scaling : key => [alarm.threshold, alarm.evaluation_periods] } == {
      busy = [70, 5], idle = [30, 10],
    }
    error_message = "the numbers of the plan"
  }
  assert {
    condition = alltrue([
      for alarm in aws_cloudwatch_metric_alarm.scaling : anytrue([
        for query in alarm.metric_query : query.expression == "IF(FILL(serving, 0) >= in_service, cpu, 50)" && query.return_data == true
      ])
    ])
    error_message = "a node that does not serve must keep both alarms silent: 50 lies between them"
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
