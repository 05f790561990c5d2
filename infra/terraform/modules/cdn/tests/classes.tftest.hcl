mock_provider "aws" {
  mock_resource "aws_cloudfront_distribution" {
    defaults = { domain_name = "d1.cloudfront.net", hosted_zone_id = "Z2FDTNDATAQYW2" }
  }
}

variables {
  name          = "pulse-test"
  domain        = "api.example.com"
  zone_id       = "Z0123456789"
  origin_domain = "origin.api.example.com"
  secret_header = "X-Origin-Secret"
  origin_secret = "not so secret"
  web_acl_arn   = "arn:aws:wafv2:us-east-1:123456789012:global/webacl/a/1"
}

run "tips_are_kept_for_seconds_and_never_longer_than_the_node_says" {
  command = plan
  assert {
    condition     = { for class, policy in aws_cloudfront_cache_policy.class : class => policy.max_ttl } == { chain = 31536000, short = 10, tip = 2 }
    error_message = "each class has its bound"
  }
  assert {
    condition     = alltrue([for policy in aws_cloudfront_cache_policy.class : policy.min_ttl == 0 && policy.default_ttl == 0])
    error_message = "what the node says not to keep is not kept"
  }
}

run "push_and_mempool_are_never_cached" {
  command = apply
  assert {
    condition = alltrue([
      for behavior in aws_cloudfront_distribution.api.ordered_cache_behavior :
      behavior.cache_policy_id == "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
      if contains(["*/ws", "*/events", "*/mempool*", "*/fee-estimates"], behavior.path_pattern)
    ])
    error_message = "these must pass"
  }
  assert {
    condition     = contains(aws_cloudfront_distribution.api.default_cache_behavior[0].allowed_methods, "POST")
    error_message = "transactions are posted"
  }
}

run "answers_to_keys_are_kept_apart" {
  command = plan
  assert {
    condition = alltrue([
      for policy in aws_cloudfront_cache_policy.class :
      toset(policy.parameters_in_cache_key_and_forwarded_to_origin[0].headers_config[0].headers[0].items) == toset(["Authorization", "X-Api-Key"])
    ])
    error_message = "a key's answers must not be served without it"
  }
  assert {
    condition     = alltrue([for policy in aws_cloudfront_cache_policy.class : policy.parameters_in_cache_key_and_forwarded_to_origin[0].query_strings_config[0].query_string_behavior == "all"])
    error_message = "queries make answers differ"
  }
}

run "errors_are_asked_again" {
  command = plan
  assert {
    condition     = alltrue([for error in aws_cloudfront_distribution.api.custom_error_response : error.error_caching_min_ttl == 0]) && length(aws_cloudfront_distribution.api.custom_error_response) == 7
    error_message = "a 404 of an unconfirmed transaction must not stay"
  }
}

run "the_origin_sees_the_secret_over_https" {
  command = plan
  assert {
    condition     = one(one(aws_cloudfront_distribution.api.origin).custom_header).name == "X-Origin-Secret" && one(aws_cloudfront_distribution.api.origin).custom_origin_config[0].origin_protocol_policy == "https-only"
    error_message = "the origin is reached only with the secret"
  }
}
