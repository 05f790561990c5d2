# A file system that all nodes mount: the newest snapshots, from which a new node starts
# without fetching from S3 first. S3 keeps its own copies, on which nodes fall back.

resource "aws_efs_file_system" "snapshots" {
  creation_token   = "${var.name}-snapshots"
  encrypted        = true
  kms_key_id       = var.kms_key_arn
  performance_mode = "generalPurpose"
  # Elastic throughput is paid by the byte, and a backup a day has hundreds of gigabytes; the
  # burst of a file system of that size (100 MiB/s and more) costs nothing.
  throughput_mode = "bursting"
  tags            = { Name = "${var.name}-snapshots" }

  lifecycle_policy {
    transition_to_ia = "AFTER_7_DAYS"
  }
  lifecycle_policy {
    transition_to_primary_storage_class = "AFTER_1_ACCESS"
  }
}

# Snapshots can be made again, and S3 has them: no backups of their backups.
resource "aws_efs_backup_policy" "snapshots" {
  file_system_id = aws_efs_file_system.snapshots.id
  backup_policy {
    status = "DISABLED"
  }
}

# Everybody is the service's user, as which nodes write; the root of what is mounted.
resource "aws_efs_access_point" "snapshots" {
  file_system_id = aws_efs_file_system.snapshots.id
  posix_user {
    uid = var.user_id
    gid = var.user_id
  }
  root_directory {
    path = "/snapshots"
    creation_info {
      owner_uid   = var.user_id
      owner_gid   = var.user_id
      permissions = "0700"
    }
  }
}

resource "aws_efs_mount_target" "zone" {
  count           = length(var.subnets)
  file_system_id  = aws_efs_file_system.snapshots.id
  subnet_id       = var.subnets[count.index]
  security_groups = [aws_security_group.snapshots.id]
}

resource "aws_security_group" "snapshots" {
  name        = "${var.name}-snapshots"
  description = "The file system with the snapshots"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "nodes" {
  security_group_id            = aws_security_group.snapshots.id
  description                  = "NFS from the nodes"
  referenced_security_group_id = var.node_security_group
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
}

# Nodes alone, over TLS, through the access point.
resource "aws_efs_file_system_policy" "nodes" {
  file_system_id = aws_efs_file_system.snapshots.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Nodes"
        Effect    = "Allow"
        Principal = { AWS = var.node_role_arn }
        Action    = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
        Resource  = aws_efs_file_system.snapshots.arn
        Condition = { StringEquals = { "elasticfilesystem:AccessPointArn" = aws_efs_access_point.snapshots.arn } }
      },
      {
        Sid       = "NoPlainText"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "*"
        Resource  = aws_efs_file_system.snapshots.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}
