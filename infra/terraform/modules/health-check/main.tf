# Asks the API from outside every five minutes, as its clients do, and compares its height
# with a public API: infra/lambda/health_check. Its metrics are what modules/alarms looks at.

data "archive_file" "handler" {
  type        = "zip"
  source_file = "${path.module}/../../../lambda/health_check/handler.py"
  output_path = "${path.root}/.terraform/health_check-${var.name}.zip"
}

resource "aws_lambda_function" "check" {
  function_name    = "${var.name}-health-check"
  description      = "Compares the height of ${var.node_url} with that of a public API"
  role             = aws_iam_role.check.arn
  runtime          = "python3.13"
  architectures    = ["arm64"]
  handler          = "handler.handler"
  filename         = data.archive_file.handler.output_path
  source_code_hash = data.archive_file.handler.output_base64sha256
  # It asks up to six times, ten seconds each.
  timeout     = 90
  memory_size = 128
  # One check at a time.
  reserved_concurrent_executions = 1
  kms_key_arn                    = var.kms_key_arn

  environment {
    variables = {
      NODE_URL     = var.node_url
      PUBLIC_URL   = var.public_api == null ? "" : var.public_api
      NAMESPACE    = "Pulse"
      NODE_NAME    = var.name
      TIMEOUT_SECS = "10"
    }
  }
  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.check.name
  }
}

resource "aws_cloudwatch_log_group" "check" {
  name              = "/pulse/${var.name}/health-check"
  retention_in_days = 365
  kms_key_id        = var.kms_key_arn
}

resource "aws_iam_role" "check" {
  name = "${var.name}-health-check"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "check" {
  name = "check"
  role = aws_iam_role.check.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Allow"
        Action    = ["cloudwatch:PutMetricData"]
        Resource  = "*"
        Condition = { StringEquals = { "cloudwatch:namespace" = "Pulse" } }
      },
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.check.arn}:*"
      },
      {
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = var.kms_key_arn
      },
    ]
  })
}

resource "aws_cloudwatch_event_rule" "check" {
  name                = "${var.name}-health-check"
  description         = "Every five minutes"
  schedule_expression = "rate(5 minutes)"
}

resource "aws_cloudwatch_event_target" "check" {
  rule = aws_cloudwatch_event_rule.check.name
  arn  = aws_lambda_function.check.arn
  # What was not checked now is checked in five minutes.
  retry_policy {
    maximum_retry_attempts       = 0
    maximum_event_age_in_seconds = 60
  }
}

resource "aws_lambda_permission" "check" {
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.check.function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.check.arn
}
