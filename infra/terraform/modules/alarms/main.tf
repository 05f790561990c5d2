# Alarms and a dashboard over what one environment has: a single node, or a group behind a
# balancer.

locals {
  disks = { warning = 80, critical = 90 }
  # Keys are known before anything is made; values are not.
  group = var.has_group ? { group = var.group } : {}
  alone = var.has_group ? {} : { node = var.instance_id }
  front = var.has_balancer ? { balancer = var.balancer } : {}
}

resource "aws_cloudwatch_metric_alarm" "disk" {
  for_each            = local.disks
  alarm_name          = "${var.name}-disk-${each.key}"
  alarm_description   = "A data volume is more than ${each.value} % full"
  namespace           = "Pulse"
  metric_name         = "disk_used_percent"
  dimensions          = merge({ path = var.data_volume }, { for _, group in local.group : "AutoScalingGroupName" => group }, { for _, id in local.alone : "InstanceId" => id })
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value
  period              = 300
  evaluation_periods  = 2
  treat_missing_data  = "missing"
  alarm_actions       = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "cpu" {
  alarm_name          = "${var.name}-cpu"
  alarm_description   = "The processor has been above 90 % for ten minutes"
  namespace           = "AWS/EC2"
  metric_name         = "CPUUtilization"
  dimensions          = merge({ for _, group in local.group : "AutoScalingGroupName" => group }, { for _, id in local.alone : "InstanceId" => id })
  statistic           = "Average"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 90
  period              = 300
  evaluation_periods  = 2
  alarm_actions       = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "status" {
  for_each            = local.alone
  alarm_name          = "${var.name}-status"
  alarm_description   = "The instance or its host fails its status checks: it is moved to another host"
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed_System"
  dimensions          = { InstanceId = each.value }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 3
  alarm_actions       = [var.alarm_topic_arn, "arn:aws:automate:${var.region}:ec2:recover"]
}

resource "aws_cloudwatch_metric_alarm" "hosts" {
  for_each            = local.front
  alarm_name          = "${var.name}-no-healthy-node"
  alarm_description   = "No node behind the balancer is ready"
  namespace           = "AWS/ApplicationELB"
  metric_name         = "HealthyHostCount"
  dimensions          = { LoadBalancer = each.value.arn_suffix, TargetGroup = each.value.target_group_suffix }
  statistic           = "Maximum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 2
  treat_missing_data  = "breaching"
  alarm_actions       = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "unhealthy" {
  for_each            = local.front
  alarm_name          = "${var.name}-unhealthy-node"
  alarm_description   = "A node behind the balancer has not been ready for an hour"
  namespace           = "AWS/ApplicationELB"
  metric_name         = "UnHealthyHostCount"
  dimensions          = { LoadBalancer = each.value.arn_suffix, TargetGroup = each.value.target_group_suffix }
  statistic           = "Minimum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 12
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "failing" {
  for_each            = local.front
  alarm_name          = "${var.name}-failing"
  alarm_description   = "More than one request in twenty fails"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 5
  evaluation_periods  = 5
  datapoints_to_alarm = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alarm_topic_arn]

  metric_query {
    id          = "percent"
    expression  = "100 * errors / requests"
    label       = "Failing requests, percent"
    return_data = true
  }
  metric_query {
    id = "errors"
    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "HTTPCode_Target_5XX_Count"
      dimensions  = { LoadBalancer = each.value.arn_suffix }
      period      = 60
      stat        = "Sum"
    }
  }
  metric_query {
    id = "requests"
    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "RequestCount"
      dimensions  = { LoadBalancer = each.value.arn_suffix }
      period      = 60
      stat        = "Sum"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "slow" {
  for_each            = local.front
  alarm_name          = "${var.name}-slow"
  alarm_description   = "The 95th percentile of answers is over three seconds"
  namespace           = "AWS/ApplicationELB"
  metric_name         = "TargetResponseTime"
  dimensions          = { LoadBalancer = each.value.arn_suffix }
  extended_statistic  = "p95"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 3
  period              = 300
  evaluation_periods  = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = concat(
      [
        {
          type = "metric", x = 0, y = 0, width = 12, height = 6
          properties = {
            title = "Processor", region = var.region, stat = "Average", period = 60
            metrics = concat(
              [for group in values(local.group) : ["AWS/EC2", "CPUUtilization", "AutoScalingGroupName", group]],
              [for id in values(local.alone) : ["AWS/EC2", "CPUUtilization", "InstanceId", id]],
            )
          }
        },
        {
          type = "metric", x = 12, y = 0, width = 12, height = 6
          properties = {
            title = "Data volume, percent used", region = var.region, stat = "Maximum", period = 300
            metrics = concat(
              [for group in values(local.group) : ["Pulse", "disk_used_percent", "path", var.data_volume, "AutoScalingGroupName", group]],
              [for id in values(local.alone) : ["Pulse", "disk_used_percent", "path", var.data_volume, "InstanceId", id]],
            )
          }
        },
        {
          type = "log", x = 0, y = 6, width = 24, height = 6
          properties = {
            title = "Last errors and warnings", region = var.region
            query = "SOURCE '${var.log_group}' | fields @timestamp, level, message | filter level in ['ERROR', 'WARN'] | sort @timestamp desc | limit 50"
          }
        },
      ],
      [for balancer in values(local.front) : {
        type = "metric", x = 0, y = 12, width = 12, height = 6
        properties = {
          title = "Requests and failures", region = var.region, stat = "Sum", period = 60
          metrics = [
            ["AWS/ApplicationELB", "RequestCount", "LoadBalancer", balancer.arn_suffix],
            ["AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", "LoadBalancer", balancer.arn_suffix],
          ]
        }
      }],
      [for balancer in values(local.front) : {
        type = "metric", x = 12, y = 12, width = 12, height = 6
        properties = {
          title = "Nodes that are ready", region = var.region, stat = "Minimum", period = 60
          metrics = [
            ["AWS/ApplicationELB", "HealthyHostCount", "LoadBalancer", balancer.arn_suffix, "TargetGroup", balancer.target_group_suffix],
          ]
        }
      }],
    )
  })
}
