# One node with an address of its own. The data volume outlives the instance.
#
# Other user data (another version above all) does not replace the instance: it is stopped, its
# user data changed, and started. cloud-init would run a script at the first boot only, so the
# script comes with word that it runs at every one; it may run any number of times.

locals {
  boundary = "=pulse-node="
  script   = "${var.user_data_settings}export SETUP_DATA_DEVICE=${aws_ebs_volume.data.id}\n${var.user_data}"
  user_data = join("\n", [
    "Content-Type: multipart/mixed; boundary=\"${local.boundary}\"",
    "MIME-Version: 1.0",
    "",
    "--${local.boundary}",
    "Content-Type: text/cloud-config; charset=\"utf-8\"",
    "",
    "#cloud-config",
    "cloud_final_modules:",
    "- [scripts-user, always]",
    "",
    "--${local.boundary}",
    "Content-Type: text/x-shellscript; charset=\"utf-8\"",
    "",
    local.script,
    "--${local.boundary}--",
    "",
  ])
}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
}

data "aws_subnet" "here" {
  id = var.subnet
}

resource "aws_instance" "node" {
  ami                    = data.aws_ssm_parameter.image.insecure_value
  instance_type          = var.instance_type
  subnet_id              = var.subnet
  vpc_security_group_ids = [var.security_group]
  iam_instance_profile   = var.instance_profile
  user_data_base64       = base64gzip(local.user_data)
  monitoring             = true
  ebs_optimized          = true

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_size = 20
    volume_type = "gp3"
    encrypted   = true
    kms_key_id  = var.kms_key_arn
  }

  dynamic "instance_market_options" {
    for_each = var.spot ? [1] : []
    content {
      market_type = "spot"
      spot_options {
        max_price                      = var.spot_max_price
        spot_instance_type             = "persistent"
        instance_interruption_behavior = "stop"
      }
    }
  }

  tags = { Name = "${var.name}-node", role = "pulse-node" }

  lifecycle {
    ignore_changes = [ami]
  }
}

resource "aws_ebs_volume" "data" {
  availability_zone = data.aws_subnet.here.availability_zone
  size              = var.volume_gb
  type              = "gp3"
  iops              = var.volume_iops
  throughput        = var.volume_mib_per_second
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  tags              = { Name = "${var.name}-data", backup = var.name }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_volume_attachment" "data" {
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.data.id
  instance_id = aws_instance.node.id
  # The file system is unmounted cleanly first.
  stop_instance_before_detaching = true
}

resource "aws_eip" "node" {
  domain   = "vpc"
  instance = aws_instance.node.id
  tags     = { Name = "${var.name}-node" }
}
