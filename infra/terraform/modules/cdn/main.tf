# CloudFront in front of the API: one name for all regions, and a cache.
#
#   client -> CloudFront and its firewall -> origin.DOMAIN (the nearest region) -> ALB -> node
#
# A node says itself how long each answer holds (Cache-Control, by depth). The classes here
# are upper bounds, so that no setting of a node can make a tip old. POST is never cached;
# WebSocket and events pass. Headers of answers (X-Tip-Height, ETag, X-Next-Cursor, CORS)
# pass as they are.
#
# The origin answers only to requests with the secret header, and its security group admits
# only CloudFront.

locals {
  # By class: the longest time that an answer is kept, in seconds.
  longest = { chain = 31536000, short = 10, tip = 2 }
  none    = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad" # AWS: CachingDisabled
  viewer  = "b689b0a8-53d0-40ab-baf2-68738e2966ac" # AWS: AllViewerExceptHostHeader
  # First match counts. A leading * covers the root and /api.
  classes = [
    { path = "*/ws", class = "none" },
    { path = "*/events", class = "none" },
    { path = "*/mempool*", class = "none" },
    { path = "*/fee-estimates", class = "none" },
    { path = "*/fees/*", class = "none" },
    { path = "*/blocks/tip/*", class = "tip" },
    { path = "*/block/*", class = "chain" },
    { path = "*/block-height/*", class = "chain" },
    { path = "*/tx/*", class = "chain" },
  ]
  policies = merge({ for class, policy in aws_cloudfront_cache_policy.class : class => policy.id }, { none = local.none })
}

resource "aws_cloudfront_cache_policy" "class" {
  for_each    = local.longest
  name        = "${var.name}-${each.key}"
  comment     = "At most ${each.value} s, less if the node says so"
  min_ttl     = 0
  default_ttl = 0
  max_ttl     = each.value
  parameters_in_cache_key_and_forwarded_to_origin {
    enable_accept_encoding_gzip   = true
    enable_accept_encoding_brotli = true
    query_strings_config {
      query_string_behavior = "all"
    }
    # What is answered to one key is not answered to another, or to nobody.
    headers_config {
      header_behavior = "whitelist"
      headers {
        items = ["Authorization", "X-Api-Key"]
      }
    }
    cookies_config {
      cookie_behavior = "none"
    }
  }
}

resource "aws_cloudfront_response_headers_policy" "api" {
  name    = "${var.name}-api"
  comment = "Adds HSTS; takes nothing away"
  security_headers_config {
    strict_transport_security {
      access_control_max_age_sec = 31536000
      override                   = true
    }
    content_type_options {
      override = true
    }
  }
}

resource "aws_cloudfront_distribution" "api" {
  comment         = "${var.name} API"
  enabled         = true
  is_ipv6_enabled = true
  http_version    = "http2and3"
  price_class     = var.price_class
  aliases         = [var.domain]
  web_acl_id      = var.web_acl_arn

  origin {
    origin_id   = "nodes"
    domain_name = var.origin_domain
    custom_header {
      name  = var.secret_header
      value = var.origin_secret
    }
    custom_origin_config {
      http_port              = 80
      https_port             = 443
      origin_protocol_policy = "https-only"
      origin_ssl_protocols   = ["TLSv1.2"]
      # A node answers within http.request_timeout_secs (30) or says 503; open
      # connections hear from it every 30 seconds.
      origin_read_timeout      = 60
      origin_keepalive_timeout = 60
    }
  }

  default_cache_behavior {
    target_origin_id           = "nodes"
    viewer_protocol_policy     = "redirect-to-https"
    allowed_methods            = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"]
    cached_methods             = ["GET", "HEAD"]
    compress                   = true
    cache_policy_id            = local.policies["short"]
    origin_request_policy_id   = local.viewer
    response_headers_policy_id = aws_cloudfront_response_headers_policy.api.id
  }

  dynamic "ordered_cache_behavior" {
    for_each = local.classes
    content {
      path_pattern               = ordered_cache_behavior.value.path
      target_origin_id           = "nodes"
      viewer_protocol_policy     = "redirect-to-https"
      allowed_methods            = ["GET", "HEAD", "OPTIONS"]
      cached_methods             = ["GET", "HEAD"]
      compress                   = true
      cache_policy_id            = local.policies[ordered_cache_behavior.value.class]
      origin_request_policy_id   = local.viewer
      response_headers_policy_id = aws_cloudfront_response_headers_policy.api.id
    }
  }

  # A transaction that is unknown now may be known in a second; a node that is not synced
  # may be, too. CloudFront would keep these ten seconds.
  dynamic "custom_error_response" {
    for_each = [400, 403, 404, 500, 502, 503, 504]
    content {
      error_code            = custom_error_response.value
      error_caching_min_ttl = 0
    }
  }

  # Countries are blocked by the firewall.
  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    acm_certificate_arn      = module.certificate.arn
    ssl_support_method       = "sni-only"
    minimum_protocol_version = "TLSv1.2_2021"
  }
}

module "certificate" {
  source  = "../certificate"
  domains = [var.domain]
  zone_id = var.zone_id
  region  = "us-east-1"
}

resource "aws_route53_record" "api" {
  for_each = toset(["A", "AAAA"])
  zone_id  = var.zone_id
  name     = var.domain
  type     = each.key
  alias {
    name                   = aws_cloudfront_distribution.api.domain_name
    zone_id                = aws_cloudfront_distribution.api.hosted_zone_id
    evaluate_target_health = false
  }
}
