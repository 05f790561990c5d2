# Who may do what: the role of the instances, and the security groups by role.

data "aws_caller_identity" "me" {}

data "aws_region" "here" {}

resource "aws_iam_role" "node" {
  name = "${var.name}-node"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_instance_profile" "node" {
  name = "${var.name}-node"
  role = aws_iam_role.node.name
}

# A shell through SSM needs no open port and no key.
resource "aws_iam_role_policy_attachment" "ssm" {
  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_role_policy" "node" {
  name = "node"
  role = aws_iam_role.node.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ReadArtifacts"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = "${var.artifacts_bucket_arn}/nodes/*"
      },
      {
        Sid      = "Snapshots"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
        Resource = "${var.snapshots_bucket_arn}/*"
      },
      {
        # Only added to: what is there is neither read nor removed by a node.
        Sid      = "Archive"
        Effect   = "Allow"
        Action   = ["s3:PutObject", "s3:AbortMultipartUpload"]
        Resource = "${var.archive_bucket_arn}/*"
      },
      {
        Sid      = "ListSnapshotsAndArchive"
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = [var.snapshots_bucket_arn, var.archive_bucket_arn]
      },
      {
        Sid      = "Secrets"
        Effect   = "Allow"
        Action   = ["ssm:GetParametersByPath"]
        Resource = "arn:aws:ssm:${data.aws_region.here.region}:${data.aws_caller_identity.me.account_id}:parameter${var.secrets_path}"
      },
      {
        Sid      = "Key"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = var.kms_key_arn
      },
      {
        Sid      = "Logs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
        Resource = "${var.log_group_arn}:*"
      },
      {
        Sid       = "Metrics"
        Effect    = "Allow"
        Action    = ["cloudwatch:PutMetricData"]
        Resource  = "*"
        Condition = { StringEquals = { "cloudwatch:namespace" = "Pulse" } }
      },
      {
        # Tells the group that this node serves, or that it cannot be helped.
        Sid      = "Lifecycle"
        Effect   = "Allow"
        Action   = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat", "autoscaling:SetInstanceHealth"]
        Resource = "arn:aws:autoscaling:${data.aws_region.here.region}:${data.aws_caller_identity.me.account_id}:autoScalingGroup:*:autoScalingGroupName/${var.name}-nodes"
      },
      {
        Sid      = "TellOfFailures"
        Effect   = "Allow"
        Action   = ["sns:Publish"]
        Resource = var.alarm_topic_arn
      },
    ]
  })
}

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "The load balancer"
  vpc_id      = var.vpc_id
}

# A group of its own: CloudFront's list counts as 55 rules, and a group has 60.
resource "aws_security_group" "health_checks" {
  count       = var.behind_cdn ? 1 : 0
  name        = "${var.name}-health-checks"
  description = "The load balancer, for the health checks of Route 53"
  vpc_id      = var.vpc_id
}

# Behind a CDN: the CDN and Route 53's health checks, by the lists that AWS keeps.
data "aws_ec2_managed_prefix_list" "https" {
  for_each = var.behind_cdn ? {
    cdn           = "com.amazonaws.global.cloudfront.origin-facing"
    health_checks = "com.amazonaws.${data.aws_region.here.region}.route53-healthchecks"
  } : {}
  name = each.value
}

resource "aws_vpc_security_group_ingress_rule" "https" {
  for_each          = var.behind_cdn ? toset(["cdn", "health_checks"]) : toset(["everybody"])
  security_group_id = each.key == "health_checks" ? aws_security_group.health_checks[0].id : aws_security_group.balancer.id
  description       = "HTTPS: ${each.key}"
  cidr_ipv4         = var.behind_cdn ? null : "0.0.0.0/0"
  prefix_list_id    = var.behind_cdn ? data.aws_ec2_managed_prefix_list.https[each.key].id : null
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# Only to send browsers on to HTTPS; a CDN does that itself.
resource "aws_vpc_security_group_ingress_rule" "http" {
  count             = var.behind_cdn ? 0 : 1
  security_group_id = aws_security_group.balancer.id
  description       = "HTTP, redirected"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "Requests and health checks to the nodes"
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = var.ports.http
  to_port                      = var.ports.http
}

resource "aws_security_group" "node" {
  name        = "${var.name}-node"
  description = "The nodes"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "node_http" {
  security_group_id            = aws_security_group.node.id
  description                  = "Requests through the load balancer"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = var.ports.http
  to_port                      = var.ports.http
}

resource "aws_vpc_security_group_ingress_rule" "node_http_direct" {
  for_each          = toset(var.http_from)
  security_group_id = aws_security_group.node.id
  description       = "Requests without a balancer"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = var.ports.http
  to_port           = var.ports.http
}

# The network balancer keeps the client's address, so these are open to everybody.
resource "aws_vpc_security_group_ingress_rule" "node_public" {
  for_each          = { p2p = var.ports.p2p, electrum = var.ports.electrum_tls }
  security_group_id = aws_security_group.node.id
  description       = each.key
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
}

resource "aws_vpc_security_group_ingress_rule" "fleet" {
  for_each                     = toset(["tcp", "udp"])
  security_group_id            = aws_security_group.node.id
  description                  = "Nodes of the fleet among each other (${each.key})"
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = each.key
  from_port                    = var.ports.fleet
  to_port                      = var.ports.fleet
}

resource "aws_vpc_security_group_ingress_rule" "ops" {
  security_group_id = aws_security_group.node.id
  description       = "Metrics, from inside the VPC only"
  cidr_ipv4         = var.vpc_cidr
  ip_protocol       = "tcp"
  from_port         = var.ports.ops
  to_port           = var.ports.ops
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  for_each          = toset(var.ssh_from)
  security_group_id = aws_security_group.node.id
  description       = "SSH from one address"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}

# Bitcoin peers listen on any port.
resource "aws_vpc_security_group_egress_rule" "node" {
  security_group_id = aws_security_group.node.id
  description       = "Bitcoin peers, AWS, package updates"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
