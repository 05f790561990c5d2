# Logs, and who is told of what. The alarms here see the machines from outside; those of
# infra/monitoring see what the nodes say of themselves.

resource "aws_cloudwatch_log_group" "nodes" {
  name              = "/pulse/${var.name}/nodes"
  retention_in_days = var.log_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_subscription" "email" {
  for_each  = toset(var.emails)
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

# Errors that nodes have logged.
resource "aws_cloudwatch_log_metric_filter" "errors" {
  name           = "${var.name}-errors"
  log_group_name = aws_cloudwatch_log_group.nodes.name
  pattern        = "{ $.level = \"ERROR\" }"
  metric_transformation {
    namespace     = "Pulse"
    name          = "${var.name}-errors"
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${var.name}-errors"
  alarm_description   = "A node has logged an error"
  namespace           = "Pulse"
  metric_name         = "${var.name}-errors"
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}
