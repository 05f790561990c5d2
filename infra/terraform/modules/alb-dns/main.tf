# HTTPS for everybody: load balancer, certificate, name.

resource "aws_lb" "main" {
  name                       = var.name
  load_balancer_type         = "application"
  subnets                    = var.subnets
  security_groups            = [var.security_group]
  drop_invalid_header_fields = true
  enable_deletion_protection = var.protected
  # WebSocket and events stay open; the node pings every 30 seconds.
  idle_timeout = 120
}

resource "aws_lb_target_group" "http" {
  name     = "${var.name}-http"
  port     = var.http_port
  protocol = "HTTP"
  vpc_id   = var.vpc_id
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
  certificate_arn   = aws_acm_certificate_validation.main.certificate_arn
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.http.arn
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

resource "aws_acm_certificate" "main" {
  domain_name       = var.domain
  validation_method = "DNS"
  lifecycle {
    create_before_destroy = true
  }
}

# One name, so one record; its key is known before the certificate is.
resource "aws_route53_record" "validation" {
  for_each        = toset([var.domain])
  zone_id         = var.zone_id
  name            = one([for option in aws_acm_certificate.main.domain_validation_options : option.resource_record_name if option.domain_name == each.key])
  type            = one([for option in aws_acm_certificate.main.domain_validation_options : option.resource_record_type if option.domain_name == each.key])
  records         = [for option in aws_acm_certificate.main.domain_validation_options : option.resource_record_value if option.domain_name == each.key]
  ttl             = 60
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "main" {
  certificate_arn         = aws_acm_certificate.main.arn
  validation_record_fqdns = [for record in aws_route53_record.validation : record.fqdn]
}

# Each region answers those who are near it; a region without a healthy node is left out.
resource "aws_route53_record" "api" {
  zone_id        = var.zone_id
  name           = var.domain
  type           = "A"
  set_identifier = var.region
  latency_routing_policy {
    region = var.region
  }
  alias {
    name                   = aws_lb.main.dns_name
    zone_id                = aws_lb.main.zone_id
    evaluate_target_health = true
  }
}
