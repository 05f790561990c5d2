# Electrum over TLS and Bitcoin P2P. The nodes end the TLS themselves, and see the clients'
# own addresses, which their limits count by.

locals {
  services = { electrum = var.electrum_port, p2p = var.p2p_port }
}

resource "aws_lb" "main" {
  name                             = "${var.name}-tcp"
  load_balancer_type               = "network"
  subnets                          = var.subnets
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = var.protected
}

resource "aws_lb_target_group" "this" {
  for_each             = local.services
  name                 = "${var.name}-${each.key}"
  port                 = each.value
  protocol             = "TCP"
  vpc_id               = var.vpc_id
  preserve_client_ip   = true
  deregistration_delay = var.stop_timeout_secs

  # Not the port but what stands behind it: only synced nodes serve wallets.
  health_check {
    protocol            = "HTTP"
    port                = var.http_port
    path                = var.health_path
    matcher             = "200"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "this" {
  for_each          = local.services
  load_balancer_arn = aws_lb.main.arn
  port              = each.value
  protocol          = "TCP"
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this[each.key].arn
  }
}
