# What pods may do in AWS, by service account (EKS Pod Identity): one role each, least first.

locals {
  discovery = { StringEquals = { "aws:ResourceTag/eks:cluster-name" = var.name } }
  pods = {
    # Snapshots are fetched before the first start, and made by the backup job.
    pulse-node = {
      namespace = var.name
      account   = "pulse-node"
      statements = [
        { Effect = "Allow", Action = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"], Resource = ["${var.snapshots_bucket_arn}/*"] },
        { Effect = "Allow", Action = ["s3:ListBucket"], Resource = [var.snapshots_bucket_arn] },
        { Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = [var.kms_key_arn] },
      ]
    }
    # Volumes; the driver's own policy is attached below, this is our key.
    ebs = {
      namespace = "kube-system"
      account   = "ebs-csi-controller-sa"
      statements = [
        { Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext", "kms:CreateGrant", "kms:DescribeKey"], Resource = [var.kms_key_arn] },
      ]
    }
    autoscaler = {
      namespace = "kube-system"
      account   = "cluster-autoscaler"
      statements = [
        { Effect = "Allow", Action = ["autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingInstances", "autoscaling:DescribeLaunchConfigurations", "autoscaling:DescribeScalingActivities", "autoscaling:DescribeTags", "ec2:DescribeInstanceTypes", "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeImages", "ec2:GetInstanceTypesFromInstanceRequirements", "eks:DescribeNodegroup"], Resource = ["*"] },
        { Effect = "Allow", Action = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"], Resource = ["*"], Condition = local.discovery },
      ]
    }
    # The balancer is Terraform's; the controller only says which pods stand behind it
    # (TargetGroupBinding).
    balancer = {
      namespace = "kube-system"
      account   = "aws-load-balancer-controller"
      statements = [
        { Effect = "Allow", Action = ["elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeTargetHealth", "elasticloadbalancing:DescribeTags", "ec2:DescribeVpcs", "ec2:DescribeSubnets", "ec2:DescribeInstances", "ec2:DescribeSecurityGroups", "ec2:DescribeAvailabilityZones", "ec2:DescribeNetworkInterfaces"], Resource = ["*"] },
        { Effect = "Allow", Action = ["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"], Resource = [var.target_group] },
      ]
    }
  }
}

resource "aws_iam_role" "pod" {
  for_each = local.pods
  name     = "${var.name}-pod-${each.key}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "pods.eks.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "pod" {
  for_each = local.pods
  name     = each.key
  role     = aws_iam_role.pod[each.key].id
  policy   = jsonencode({ Version = "2012-10-17", Statement = each.value.statements })
}

resource "aws_iam_role_policy_attachment" "ebs" {
  role       = aws_iam_role.pod["ebs"].name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
}

resource "aws_eks_pod_identity_association" "pod" {
  for_each        = local.pods
  cluster_name    = aws_eks_cluster.main.name
  namespace       = each.value.namespace
  service_account = each.value.account
  role_arn        = aws_iam_role.pod[each.key].arn
}
