output "log_group" {
  value = aws_cloudwatch_log_group.nodes.name
}

output "log_group_arn" {
  value = aws_cloudwatch_log_group.nodes.arn
}

output "alarm_topic_arn" {
  value = aws_sns_topic.alarms.arn
}
