# Alarms and a dashboard over what one environment has: a single node or a group, a balancer,
# the check from outside.
#
# The alarms are a table: each line is what is asked, how long, and what it means. Those that
# take more than one metric stand below.

locals {
  # Which machines a metric is of.
  machines = merge(
    var.has_group ? tomap({ AutoScalingGroupName = var.group }) : tomap({}),
    var.has_instance ? tomap({ InstanceId = var.instance_id }) : tomap({}),
  )
  has_any = var.has_group || var.has_instance
  front   = var.has_balancer ? tomap({ LoadBalancer = var.balancer.arn_suffix }) : tomap({})
  target  = var.has_balancer ? tomap({ LoadBalancer = var.balancer.arn_suffix, TargetGroup = var.balancer.target_group_suffix }) : tomap({})
  named   = { Environment = var.name }
  checked = { Node = var.name }

  # when: whether the environment has it. Keys are known before anything is made; values of
  # dimensions are not. missing: breaching, notBreaching or missing (nothing changes).
  table = {
    disk-warning    = { when = local.has_any, says = "A data volume is more than 80 % full", metric = ["Pulse", "disk_used_percent"], of = merge(local.machines, { path = var.data_volume }), stat = "Maximum", is = ">", limit = 80, period = 300, times = 2, missing = "missing" }
    disk-critical   = { when = local.has_any, says = "A data volume is more than 90 % full", metric = ["Pulse", "disk_used_percent"], of = merge(local.machines, { path = var.data_volume }), stat = "Maximum", is = ">", limit = 90, period = 300, times = 2, missing = "missing" }
    cpu             = { when = local.has_any, says = "The processor has been above 90 % for ten minutes", metric = ["AWS/EC2", "CPUUtilization"], of = local.machines, stat = "Average", is = ">", limit = 90, period = 300, times = 2, missing = "missing" }
    status          = { when = var.has_instance, says = "The instance or its host fails its status checks: it is moved to another host", metric = ["AWS/EC2", "StatusCheckFailed_System"], of = local.machines, stat = "Maximum", is = ">", limit = 0, period = 60, times = 3, missing = "missing" }
    node-down       = { when = local.has_any, says = "No node has said for five minutes that it lives", metric = ["Pulse", "Heartbeat"], of = local.named, stat = "Sum", is = "<", limit = 1, period = 300, times = 1, missing = "breaching" }
    no-blocks       = { when = local.has_any, says = "No node has had a new block for ${var.no_block_minutes} minutes", metric = ["Pulse", "Blocks"], of = local.named, stat = "Sum", is = "<", limit = 1, period = 300, times = var.no_block_minutes / 5, missing = "notBreaching" }
    no-healthy-node = { when = var.has_balancer, says = "No node behind the balancer is ready", metric = ["AWS/ApplicationELB", "HealthyHostCount"], of = local.target, stat = "Maximum", is = "<", limit = 1, period = 60, times = 2, missing = "breaching" }
    unhealthy-node  = { when = var.has_balancer, says = "A node behind the balancer has not been ready for an hour", metric = ["AWS/ApplicationELB", "UnHealthyHostCount"], of = local.target, stat = "Minimum", is = ">", limit = 0, period = 300, times = 12, missing = "notBreaching" }
    slow            = { when = var.has_balancer, says = "The 95th percentile of answers is over three seconds", metric = ["AWS/ApplicationELB", "TargetResponseTime"], of = local.front, stat = "p95", is = ">", limit = 3, period = 300, times = 2, missing = "notBreaching" }
    unreachable     = { when = var.has_check, says = "The API does not answer from outside within ten seconds", metric = ["Pulse", "Reachable"], of = local.checked, stat = "Minimum", is = "<", limit = 1, period = 300, times = 1, missing = "breaching" }
    behind          = { when = var.has_check, says = "More than ten blocks behind a public API", metric = ["Pulse", "BlocksBehind"], of = local.checked, stat = "Minimum", is = ">", limit = 10, period = 300, times = 2, missing = "notBreaching" }
  }
  comparison = { ">" = "GreaterThanThreshold", "<" = "LessThanThreshold" }
  actions    = { status = ["arn:aws:automate:${var.region}:ec2:recover"] }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = { for key, alarm in local.table : key => alarm if alarm.when }
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.metric[0]
  metric_name         = each.value.metric[1]
  dimensions          = each.value.of
  statistic           = startswith(each.value.stat, "p") ? null : each.value.stat
  extended_statistic  = startswith(each.value.stat, "p") ? each.value.stat : null
  comparison_operator = local.comparison[each.value.is]
  threshold           = each.value.limit
  period              = each.value.period
  evaluation_periods  = each.value.times
  treat_missing_data  = each.value.missing
  alarm_actions       = concat([var.alarm_topic_arn], lookup(local.actions, each.key, []))
  ok_actions          = [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "failing" {
  count               = var.has_balancer ? 1 : 0
  alarm_name          = "${var.name}-failing"
  alarm_description   = "More than one request in twenty fails"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 5
  evaluation_periods  = 5
  datapoints_to_alarm = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]

  metric_query {
    id          = "percent"
    expression  = "100 * errors / requests"
    label       = "Failing requests, percent"
    return_data = true
  }
  dynamic "metric_query" {
    for_each = { errors = "HTTPCode_Target_5XX_Count", requests = "RequestCount" }
    content {
      id = metric_query.key
      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = metric_query.value
        dimensions  = local.front
        period      = 60
        stat        = "Sum"
      }
    }
  }
}

locals {
  scaling_metrics = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupPendingInstances", "GroupTerminatingInstances"]
  # Whether the environment has it, a title, a statistic, and the lines.
  graphs = [for graph in [
    [local.has_any, "Processor", "Average", [["AWS/EC2", "CPUUtilization", local.machines]]],
    [local.has_any, "Data volume, percent used", "Maximum", [["Pulse", "disk_used_percent", merge(local.machines, { path = var.data_volume })]]],
    [local.has_any, "Heartbeats, blocks and transactions in five minutes", "Sum", [for metric in ["Heartbeat", "Blocks", "Transactions"] : ["Pulse", metric, local.named]]],
    [local.has_any, "Sync: percent, blocks behind the best header", "Minimum", [["Pulse", "SyncPercent", local.named], ["Pulse", "IndexLag", local.named]]],
    [var.has_group, "Scaling", "Maximum", [for metric in local.scaling_metrics : ["AWS/AutoScaling", metric, local.machines]]],
    [var.has_balancer, "Requests and failures", "Sum", [["AWS/ApplicationELB", "RequestCount", local.front], ["AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", local.front]]],
    [var.has_balancer, "Nodes that are ready, and not", "Minimum", [["AWS/ApplicationELB", "HealthyHostCount", local.target], ["AWS/ApplicationELB", "UnHealthyHostCount", local.target]]],
    [var.has_balancer, "Answers, seconds (p95)", "p95", [["AWS/ApplicationELB", "TargetResponseTime", local.front]]],
    [var.has_check, "From outside: height, blocks behind", "Maximum", [["Pulse", "TipHeight", local.checked], ["Pulse", "BlocksBehind", local.checked]]],
    [var.has_file_system, "Shared snapshots, bytes", "Average", [["AWS/EFS", "StorageBytes", { FileSystemId = var.file_system_id, StorageClass = "Total" }]]],
  ] : graph if graph[0]]
}

resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = concat(
      [for place, graph in local.graphs : {
        type = "metric", x = 12 * (place % 2), y = 6 * floor(place / 2), width = 12, height = 6
        properties = {
          title = graph[1], stat = graph[2], region = var.region, period = 300
          metrics = [
            for line in graph[3] : concat([line[0], line[1]], flatten([for name, value in line[2] : [name, value]]))
          ]
        }
      }],
      [{
        type = "log", x = 0, y = 60, width = 24, height = 6
        properties = {
          title = "Last errors and warnings", region = var.region
          query = "SOURCE '${var.log_group}' | fields @timestamp, level, message | filter level in ['ERROR', 'WARN'] | sort @timestamp desc | limit 50"
        }
      }],
    )
  })
}
