# Buckets: artifacts to install, snapshots to start from, an archive to keep; and copies of
# some of them in another region (away.tf).

locals {
  # Days until old things are moved or removed; 0 is never.
  buckets = {
    artifacts = { glacier_after = 0, expire_after = 0, old_versions_after = 90 }
    snapshots = { glacier_after = 0, expire_after = 30, old_versions_after = 7 }
    archive   = { glacier_after = 30, expire_after = 0, old_versions_after = 90 }
  }
}

resource "aws_s3_bucket" "this" {
  for_each = local.buckets
  bucket   = "${var.name}-${each.key}-${var.suffix}"
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each                = local.buckets
  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each   = local.buckets
  bucket     = aws_s3_bucket.this[each.key].id
  depends_on = [aws_s3_bucket_versioning.this]

  rule {
    id     = "uploads-that-were-cut-off"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
    noncurrent_version_expiration {
      noncurrent_days = each.value.old_versions_after
    }
  }

  dynamic "rule" {
    for_each = each.value.glacier_after > 0 ? [1] : []
    content {
      id     = "to-glacier"
      status = "Enabled"
      filter {}
      transition {
        days          = each.value.glacier_after
        storage_class = "GLACIER"
      }
    }
  }

  dynamic "rule" {
    for_each = each.value.expire_after > 0 ? [1] : []
    content {
      id     = "expire"
      status = "Enabled"
      filter {}
      expiration {
        days = each.value.expire_after
      }
    }
  }
}

resource "aws_s3_bucket_policy" "encrypted_only" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "NoPlainHttp"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.this[each.key].arn, "${aws_s3_bucket.this[each.key].arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}
