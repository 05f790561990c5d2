# Two to ten nodes that replace themselves. Each has its own data volume and starts from the
# newest snapshot.
#
# The group replaces an instance by its own status checks, never by /health: a first sync
# takes hours, and a group that killed what is not yet synced would never end. The balancer
# routes by /health.

data "aws_ssm_parameter" "image" {
  name = "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"
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
  # Status checks of the instance; see above.
  health_check_type         = "EC2"
  health_check_grace_period = 300
  # Until then the processor of a new node, which syncs, does not count for scaling.
  default_instance_warmup = var.warmup_secs

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

  dynamic "tag" {
    for_each = { Name = "${var.name}-node", role = "pulse-node" }
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }
}

# Time for a node to drain before the machine goes: its own stop and the balancer's delay.
resource "aws_autoscaling_lifecycle_hook" "drain" {
  name                   = "drain"
  autoscaling_group_name = aws_autoscaling_group.nodes.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = var.stop_timeout_secs + 60
  default_result         = "CONTINUE"
}

# Out above 70 % for five minutes, in below 30 % for ten. Nodes in their warm-up, which
# sync, do not count: the warm-up is longer than a start from a snapshot.
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

resource "aws_cloudwatch_metric_alarm" "busy" {
  alarm_name          = "${var.name}-busy"
  alarm_description   = "The processors of the nodes are above 70 %: one more"
  namespace           = "AWS/EC2"
  metric_name         = "CPUUtilization"
  dimensions          = { AutoScalingGroupName = aws_autoscaling_group.nodes.name }
  statistic           = "Average"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 70
  period              = 60
  evaluation_periods  = 5
  alarm_actions       = [aws_autoscaling_policy.out.arn]
}

resource "aws_cloudwatch_metric_alarm" "idle" {
  alarm_name          = "${var.name}-idle"
  alarm_description   = "The processors of the nodes are below 30 %: one less"
  namespace           = "AWS/EC2"
  metric_name         = "CPUUtilization"
  dimensions          = { AutoScalingGroupName = aws_autoscaling_group.nodes.name }
  statistic           = "Average"
  comparison_operator = "LessThanThreshold"
  threshold           = 30
  period              = 60
  evaluation_periods  = 10
  alarm_actions       = [aws_autoscaling_policy.in.arn]
}
