# Two to ten nodes that replace themselves. Each has its own data volume and starts from the
# newest snapshot.
#
#   launched -> waits (hook `serving`) until /health is 200 -> in service -> drains -> gone
#
# What the group goes by, and why:
# - Replacement: the instance's status checks, and the node's own word when /health/live has
#   been silent for ten minutes (instance/scripts/tell-group). Never /health: a first sync
#   takes hours, and a group that killed what is not yet synced would never end.
# - Routing: /health, in the target groups.
# - Scaling: the processors of nodes in service. One that restores or syncs is not yet in
#   service, for up to 48 hours, and then has the warm-up. While any node in service is not
#   serving (it lags, or synced for longer than that) nothing is scaled, in either direction.

data "aws_ssm_parameter" "image" {
  name = var.image_parameter
}

resource "aws_launch_template" "node" {
  name          = "${var.name}-node"
  image_id      = data.aws_ssm_parameter.image.insecure_value
  instance_type = var.instance_type
  user_data     = base64gzip(var.user_data)

  iam_instance_profile {
    name = var.instance_profile
  }

  # Only IMDSv2, and not through a container's hop.
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "enabled"
  }

  monitoring {
    enabled = true
  }

  network_interfaces {
    associate_public_ip_address = var.public_address
    security_groups             = [var.security_group]
  }

  block_device_mappings {
    device_name = "/dev/sda1"
    ebs {
      volume_size           = 20
      volume_type           = "gp3"
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  block_device_mappings {
    device_name = var.data_device
    ebs {
      volume_size           = var.volume_gb
      volume_type           = "gp3"
      iops                  = var.volume_iops
      throughput            = var.volume_mib_per_second
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-node" }
  }

  tag_specifications {
    resource_type = "volume"
    tags          = { Name = "${var.name}-node" }
  }

  lifecycle {
    # A newer image is rolled out by changing the version, not by the way of another change.
    ignore_changes = [image_id]
  }
}

resource "aws_autoscaling_group" "nodes" {
  name                = "${var.name}-nodes"
  min_size            = var.nodes[0]
  max_size            = var.nodes[1]
  vpc_zone_identifier = var.subnets
  target_group_arns   = var.target_groups
  # Status checks of the instance, and what it says of itself; see above.
  health_check_type         = "EC2"
  health_check_grace_period = 300
  # Counted from the moment when a node is in service, so serves.
  default_instance_warmup = var.warmup_secs
  # In service is who serves, which may take hours: applying does not wait for it.
  wait_for_capacity_timeout = "0"
  # Scaling in takes away who has served for the shortest time.
  termination_policies = ["OldestLaunchTemplate", "NewestInstance"]
  enabled_metrics      = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupPendingInstances", "GroupTerminatingInstances", "GroupTotalInstances"]

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = var.spot ? 0 : var.nodes[0]
      on_demand_percentage_above_base_capacity = var.spot ? 0 : 100
      spot_allocation_strategy                 = "price-capacity-optimized"
    }
    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.node.id
        version            = aws_launch_template.node.latest_version
      }
    }
  }

  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 150
      instance_warmup        = var.warmup_secs
      auto_rollback          = true
    }
  }

  # With the group, so that the first instances wait, too.
  initial_lifecycle_hook {
    name                 = "serving"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    # Lengthened by the instance while its node lives, up to 48 hours in all; then, or when
    # nobody lengthens it, the instance is in service without serving: the balancers do not
    # route to it, and an alarm tells.
    heartbeat_timeout = 7200
    default_result    = "CONTINUE"
  }

  # Time for a node to drain before the machine goes: its own stop and the balancer's delay.
  initial_lifecycle_hook {
    name                 = "drain"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    heartbeat_timeout    = var.stop_timeout_secs + 60
    default_result       = "CONTINUE"
  }

  dynamic "tag" {
    for_each = { Name = "${var.name}-node", role = "pulse-node" }
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }
}

# Out above 70 % for five minutes, in below 30 % for ten.
resource "aws_autoscaling_policy" "out" {
  name                      = "out"
  autoscaling_group_name    = aws_autoscaling_group.nodes.name
  policy_type               = "StepScaling"
  adjustment_type           = "ChangeInCapacity"
  estimated_instance_warmup = var.warmup_secs
  step_adjustment {
    metric_interval_lower_bound = 0
    scaling_adjustment          = 1
  }
}

resource "aws_autoscaling_policy" "in" {
  name                   = "in"
  autoscaling_group_name = aws_autoscaling_group.nodes.name
  policy_type            = "StepScaling"
  adjustment_type        = "ChangeInCapacity"
  step_adjustment {
    metric_interval_upper_bound = 0
    scaling_adjustment          = -1
  }
}

locals {
  scaling = {
    busy = { says = "above 70 %: one more", comparison = "GreaterThanThreshold", percent = 70, minutes = 5, policy = aws_autoscaling_policy.out.arn }
    idle = { says = "below 30 %: one less", comparison = "LessThanThreshold", percent = 30, minutes = 10, policy = aws_autoscaling_policy.in.arn }
  }
  # Between the two thresholds, so that neither alarm sounds.
  no_opinion = 50
}

resource "aws_cloudwatch_metric_alarm" "scaling" {
  for_each            = local.scaling
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "The processors of the nodes are ${each.value.says}"
  comparison_operator = each.value.comparison
  threshold           = each.value.percent
  evaluation_periods  = each.value.minutes
  treat_missing_data  = "notBreaching"
  alarm_actions       = [each.value.policy]

  metric_query {
    id          = "counted"
    expression  = "IF(FILL(serving, 0) >= in_service, cpu, ${local.no_opinion})"
    label       = "Processors, while every node in service serves"
    return_data = true
  }
  metric_query {
    id = "cpu"
    metric {
      namespace   = "AWS/EC2"
      metric_name = "CPUUtilization"
      dimensions  = { AutoScalingGroupName = aws_autoscaling_group.nodes.name }
      period      = 60
      stat        = "Average"
    }
  }
  metric_query {
    id = "in_service"
    metric {
      namespace   = "AWS/AutoScaling"
      metric_name = "GroupInServiceInstances"
      dimensions  = { AutoScalingGroupName = aws_autoscaling_group.nodes.name }
      period      = 60
      stat        = "Maximum"
    }
  }
  metric_query {
    id = "serving"
    metric {
      namespace   = "AWS/ApplicationELB"
      metric_name = "HealthyHostCount"
      dimensions  = { LoadBalancer = var.balancer.arn_suffix, TargetGroup = var.balancer.target_group_suffix }
      period      = 60
      stat        = "Minimum"
    }
  }
}
