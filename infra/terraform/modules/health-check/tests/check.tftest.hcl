mock_provider "aws" {}
mock_provider "archive" {}

variables {
  name        = "pulse-test"
  node_url    = "https://api.example.com"
  public_api  = "https://public.example.com/api"
  kms_key_arn = "arn:aws:kms:us-east-2:123456789012:key/1"
}

run "it_asks_what_clients_ask_every_five_minutes" {
  command = plan
  assert {
    condition     = aws_lambda_function.check.environment[0].variables.NODE_URL == "https://api.example.com" && aws_cloudwatch_event_rule.check.schedule_expression == "rate(5 minutes)"
    error_message = "the function asks the public name"
  }
  assert {
    condition     = aws_lambda_function.check.environment[0].variables.NODE_NAME == "pulse-test"
    error_message = "the alarms look for this dimension"
  }
  assert {
    condition     = tonumber(aws_lambda_function.check.timeout) > 6 * tonumber(aws_lambda_function.check.environment[0].variables.TIMEOUT_SECS)
    error_message = "six questions may each take their time"
  }
}

run "plain_http_is_refused" {
  command = plan
  variables {
    node_url = "http://api.example.com"
  }
  expect_failures = [var.node_url]
}
