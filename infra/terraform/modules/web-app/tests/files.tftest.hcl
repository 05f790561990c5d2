mock_provider "aws" {
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::web" }
  }
  mock_resource "aws_cloudfront_distribution" {
    defaults = { arn = "arn:aws:cloudfront::123456789012:distribution/E1" }
  }
}

variables {
  name        = "pulse-test"
  suffix      = "123456789012"
  domain      = "pulse.example.com"
  api_domain  = "api.pulse.example.com"
  kms_key_arn = "arn:aws:kms:us-east-2:123456789012:key/1"
  zone_id     = "Z0123456789"
  web_acl_arn = "arn:aws:wafv2:us-east-1:123456789012:global/webacl/a/1"
}

run "only_the_distribution_reads_the_bucket" {
  command = apply
  assert {
    condition = [
      for statement in jsondecode(aws_s3_bucket_policy.app.policy).Statement : statement.Condition.StringEquals["AWS:SourceArn"]
      if statement.Effect == "Allow"
    ] == ["arn:aws:cloudfront::123456789012:distribution/E1"]
    error_message = "one statement allows, and only for this distribution"
  }
  assert {
    condition     = aws_cloudfront_origin_access_control.app.signing_behavior == "always"
    error_message = "requests to the bucket are signed"
  }
}

run "paths_of_the_app_are_answered_with_its_page" {
  command = plan
  assert {
    condition     = { for error in aws_cloudfront_distribution.app.custom_error_response : error.error_code => error.response_page_path } == { 403 = "/index.html", 404 = "/index.html" }
    error_message = "a path without a file is the app's"
  }
}
