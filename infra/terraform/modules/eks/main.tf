# A Kubernetes cluster for pulse-node, its network policies and what Git brings (GitOps,
# infra/kubernetes). Terraform ends at the cluster's API: whatever runs in it comes from there.
#
#   main.tf   control plane, add-ons, who may use it
#   nodes.tf  machines
#   pods.tf   what pods may do in AWS

resource "aws_eks_cluster" "main" {
  name     = var.name
  version  = var.kubernetes_version
  role_arn = aws_iam_role.cluster.arn

  # Rights come from access entries alone; who made the cluster has none by that.
  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = false
  }
  vpc_config {
    subnet_ids              = var.subnets
    endpoint_private_access = true
    endpoint_public_access  = length(var.api_from) > 0
    public_access_cidrs     = length(var.api_from) > 0 ? var.api_from : null
  }
  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = var.kms_key_arn
    }
  }
  enabled_cluster_log_types = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  deletion_protection       = var.protected
  depends_on                = [aws_iam_role_policy_attachment.cluster, aws_cloudwatch_log_group.cluster]
}

resource "aws_cloudwatch_log_group" "cluster" {
  # The name that EKS writes to.
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = 365
  kms_key_id        = var.kms_key_arn
}

resource "aws_iam_role" "cluster" {
  name = "${var.name}-eks"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "eks.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
}

locals {
  addons = {
    # Enforces the network policies of the chart.
    vpc-cni                = jsonencode({ enableNetworkPolicy = "true" })
    kube-proxy             = null
    coredns                = null
    metrics-server         = null
    eks-pod-identity-agent = null
    aws-ebs-csi-driver     = null
  }
  access = merge(
    { for arn in var.admin_roles : arn => "AmazonEKSClusterAdminPolicy" },
    { for arn in var.viewer_roles : arn => "AmazonEKSViewPolicy" },
  )
}

resource "aws_eks_addon" "this" {
  for_each                    = local.addons
  cluster_name                = aws_eks_cluster.main.name
  addon_name                  = each.key
  configuration_values        = each.value
  resolve_conflicts_on_update = "OVERWRITE"
  # Some have pods, which need machines.
  depends_on = [aws_eks_node_group.zone]
}

resource "aws_eks_access_entry" "person" {
  for_each      = local.access
  cluster_name  = aws_eks_cluster.main.name
  principal_arn = each.key
}

resource "aws_eks_access_policy_association" "person" {
  for_each      = local.access
  cluster_name  = aws_eks_cluster.main.name
  principal_arn = aws_eks_access_entry.person[each.key].principal_arn
  policy_arn    = "arn:aws:eks::aws:cluster-access-policy/${each.value}"
  access_scope {
    type = "cluster"
  }
}

# For tools that know service accounts by OIDC alone; pods of ours use pod identity.
resource "aws_iam_openid_connect_provider" "cluster" {
  url            = aws_eks_cluster.main.identity[0].oidc[0].issuer
  client_id_list = ["sts.amazonaws.com"]
}

# The load balancer reaches the pods.
resource "aws_vpc_security_group_ingress_rule" "balancer" {
  security_group_id            = aws_eks_cluster.main.vpc_config[0].cluster_security_group_id
  description                  = "Requests and health checks of the load balancer"
  referenced_security_group_id = var.balancer_security_group
  ip_protocol                  = "tcp"
  from_port                    = var.http_port
  to_port                      = var.http_port
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  security_group_id            = var.balancer_security_group
  description                  = "Requests and health checks to the pods"
  referenced_security_group_id = aws_eks_cluster.main.vpc_config[0].cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = var.http_port
  to_port                      = var.http_port
}
