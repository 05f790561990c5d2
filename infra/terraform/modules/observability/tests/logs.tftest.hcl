mock_provider "aws" {}

variables {
  name        = "pulse-test"
  emails      = ["ops@example.com", "on-call@example.com"]
  kms_key_arn = "arn:aws:kms:us-east-2:123456789012:key/1"
}

run "errors_in_the_log_are_told_to_everybody" {
  command = plan
  assert {
    condition     = aws_cloudwatch_log_metric_filter.errors.pattern == "{ $.level = \"ERROR\" }" && aws_cloudwatch_metric_alarm.errors.metric_name == aws_cloudwatch_log_metric_filter.errors.metric_transformation[0].name
    error_message = "the alarm looks at what the filter counts"
  }
  assert {
    condition     = tolist(keys(aws_sns_topic_subscription.email)) == sort(var.emails)
    error_message = "each address is told"
  }
}

run "logs_are_encrypted_and_do_not_stay_for_ever" {
  command = plan
  assert {
    condition     = aws_cloudwatch_log_group.nodes.kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.nodes.retention_in_days == 365
    error_message = "a year, with our key"
  }
}
