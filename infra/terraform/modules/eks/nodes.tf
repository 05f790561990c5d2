# Machines: for pulse-node one group in each zone, because a pod's volume stays in its zone
# and an autoscaler must know which group grows there; for everything that may be interrupted,
# one group of spot instances over all zones.

locals {
  groups = merge(
    { for place, subnet in var.subnets : "zone-${place + 1}" => {
      subnets = [subnet], types = [var.instance_type], spot = false, sizes = var.nodes_per_zone
    } },
    { spot = { subnets = var.subnets, types = var.spot_instance_types, spot = true, sizes = [0, 6] } },
  )
}

resource "aws_eks_node_group" "zone" {
  for_each        = local.groups
  cluster_name    = aws_eks_cluster.main.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.machine.arn
  subnet_ids      = each.value.subnets
  instance_types  = each.value.types
  capacity_type   = each.value.spot ? "SPOT" : "ON_DEMAND"
  ami_type        = "AL2023_x86_64_STANDARD"
  labels          = { "pulse-node/capacity" = each.value.spot ? "spot" : "steady" }

  launch_template {
    id      = aws_launch_template.machine.id
    version = aws_launch_template.machine.latest_version
  }
  scaling_config {
    min_size     = each.value.sizes[0]
    max_size     = each.value.sizes[1]
    desired_size = each.value.sizes[0]
  }
  update_config {
    max_unavailable = 1
  }
  # Pods of pulse-node do not land where they may be interrupted.
  dynamic "taint" {
    for_each = each.value.spot ? [1] : []
    content {
      key    = "pulse-node/spot"
      value  = "true"
      effect = "NO_SCHEDULE"
    }
  }
  lifecycle {
    # The autoscaler's.
    ignore_changes = [scaling_config[0].desired_size]
  }
  depends_on = [aws_iam_role_policy_attachment.machine]
}

resource "aws_launch_template" "machine" {
  name = "${var.name}-eks"

  # Pods do not reach the machine's role: they have pod identities.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = 50
      volume_type           = "gp3"
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }
  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-eks" }
  }
}

resource "aws_iam_role" "machine" {
  name = "${var.name}-eks-machine"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "machine" {
  for_each   = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly", "AmazonSSMManagedInstanceCore"])
  role       = aws_iam_role.machine.name
  policy_arn = "arn:aws:iam::aws:policy/${each.key}"
}
