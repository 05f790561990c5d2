mock_provider "aws" {}

variables {
  name            = "pulse-test"
  region          = "us-east-2"
  has_group       = true
  has_instance    = false
  has_balancer    = true
  has_check       = true
  group           = "pulse-test-nodes"
  balancer        = { arn_suffix = "app/a/1", target_group_suffix = "targetgroup/a/1" }
  data_volume     = "/opt/pulse/data"
  log_group       = "/pulse/test/nodes"
  alarm_topic_arn = "arn:aws:sns:us-east-2:123456789012:alarms"
}

run "a_group_behind_a_balancer_has_its_alarms" {
  command = plan
  assert {
    condition = tolist(keys(aws_cloudwatch_metric_alarm.this)) == sort([
      "behind", "cpu", "disk-critical", "disk-warning", "no-blocks", "no-healthy-node", "node-down", "slow", "unhealthy-node", "unreachable",
    ])
    error_message = "all but that of a single machine"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["node-down"].treat_missing_data == "breaching" && 5 * aws_cloudwatch_metric_alarm.this["no-blocks"].evaluation_periods == 90
    error_message = "silence is an alarm, and so are 90 minutes without a block"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["slow"].extended_statistic == "p95" && aws_cloudwatch_metric_alarm.this["slow"].statistic == null
    error_message = "percentiles are extended statistics"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["disk-warning"].dimensions == tomap({ AutoScalingGroupName = "pulse-test-nodes", path = "/opt/pulse/data" })
    error_message = "the dimensions under which the agent aggregates"
  }
}

run "a_single_node_is_moved_when_its_host_fails" {
  command = plan
  variables {
    has_group    = false
    has_instance = true
    has_balancer = false
    has_check    = false
    instance_id  = "i-1"
    balancer     = null
  }
  assert {
    condition     = contains(aws_cloudwatch_metric_alarm.this["status"].alarm_actions, "arn:aws:automate:us-east-2:ec2:recover")
    error_message = "the host's failure is repaired"
  }
  assert {
    condition     = !contains(keys(aws_cloudwatch_metric_alarm.this), "slow") && length(aws_cloudwatch_metric_alarm.failing) == 0
    error_message = "no alarms of a balancer that is not there"
  }
  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets : length(widget.properties.metrics) > 0 if widget.type == "metric"])
    error_message = "every graph has a line"
  }
}
