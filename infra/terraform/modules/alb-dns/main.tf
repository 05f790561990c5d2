# HTTPS: load balancer, certificate, names. Behind a CDN it answers only to the CDN.
#
# Several regions share `domain`: each has a record that answers those who are near it, or
# those of a continent or country. SITE_DOMAIN (REGION.DOMAIN) is this region's own, which
# health checks of Route 53 ask from outside.

locals {
  site_domain = "${var.region}.${var.domain}"
}

resource "aws_lb" "main" {
  name                       = var.name
  load_balancer_type         = "application"
  subnets                    = var.subnets
  security_groups            = var.security_groups
  drop_invalid_header_fields = true
  enable_deletion_protection = var.protected
  # WebSocket and events stay open; the node pings every 30 seconds.
  idle_timeout = 120
}

resource "aws_lb_target_group" "http" {
  name        = "${var.name}-http"
  port        = var.http_port
  protocol    = "HTTP"
  target_type = var.target_type
  vpc_id      = var.vpc_id
  # The node's own stop: open requests end within it.
  deregistration_delay          = var.stop_timeout_secs
  load_balancing_algorithm_type = "least_outstanding_requests"

  # 503 while a node syncs, lags or drains: the balancer asks another.
  health_check {
    path                = var.health_path
    matcher             = "200"
    interval            = 5
    timeout             = 4
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.main.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = module.certificate.arn

  dynamic "default_action" {
    for_each = var.behind_cdn ? [] : [1]
    content {
      type             = "forward"
      target_group_arn = aws_lb_target_group.http.arn
    }
  }
  # Who goes around the CDN gets nothing.
  dynamic "default_action" {
    for_each = var.behind_cdn ? [1] : []
    content {
      type = "fixed-response"
      fixed_response {
        content_type = "text/plain"
        status_code  = "403"
      }
    }
  }
}

# The health checks of Route 53 do not come through the CDN.
resource "aws_lb_listener_rule" "health" {
  count        = var.behind_cdn ? 1 : 0
  listener_arn = aws_lb_listener.https.arn
  priority     = 2
  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.http.arn
  }
  condition {
    path_pattern {
      values = [var.health_path]
    }
  }
}

resource "aws_lb_listener_rule" "cdn" {
  count        = var.behind_cdn ? 1 : 0
  listener_arn = aws_lb_listener.https.arn
  priority     = 10
  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.http.arn
  }
  condition {
    http_header {
      http_header_name = var.secret_header
      values           = var.origin_secrets
    }
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.main.arn
  port              = 80
  protocol          = "HTTP"
  default_action {
    type = "redirect"
    redirect {
      port        = "443"
      protocol    = "HTTPS"
      status_code = "HTTP_301"
    }
  }
}

# What is the operator's stays inside, whatever the nodes' settings are.
resource "aws_lb_listener_rule" "operator" {
  listener_arn = aws_lb_listener.https.arn
  priority     = 1
  action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      status_code  = "404"
    }
  }
  condition {
    path_pattern {
      values = ["/metrics", "/stats", "/internal/*"]
    }
  }
}

module "certificate" {
  source  = "../certificate"
  domains = [var.domain, local.site_domain]
  zone_id = var.zone_id
  region  = var.region
}

# A region without a healthy node is left out, and so is one that does not answer from
# outside.
resource "aws_route53_record" "api" {
  zone_id         = var.zone_id
  name            = var.domain
  type            = "A"
  set_identifier  = var.region
  health_check_id = aws_route53_health_check.site.id

  dynamic "latency_routing_policy" {
    for_each = var.geolocation == null ? [var.region] : []
    content {
      region = latency_routing_policy.value
    }
  }
  dynamic "geolocation_routing_policy" {
    for_each = var.geolocation == null ? [] : [var.geolocation]
    content {
      continent = geolocation_routing_policy.value.continent
      country   = geolocation_routing_policy.value.country
    }
  }
  alias {
    name                   = aws_lb.main.dns_name
    zone_id                = aws_lb.main.zone_id
    evaluate_target_health = true
  }
}

resource "aws_route53_record" "site" {
  zone_id = var.zone_id
  name    = local.site_domain
  type    = "A"
  alias {
    name                   = aws_lb.main.dns_name
    zone_id                = aws_lb.main.zone_id
    evaluate_target_health = false
  }
}

resource "aws_route53_health_check" "site" {
  type              = "HTTPS"
  fqdn              = local.site_domain
  port              = 443
  resource_path     = var.health_path
  request_interval  = 30
  failure_threshold = 3
  enable_sni        = true
  tags              = { Name = "${var.name}-${var.region}" }
}
