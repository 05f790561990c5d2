# Copies in another region, made by S3 as objects arrive.

resource "aws_s3_bucket" "away" {
  for_each = var.away_buckets
  region   = var.away_region
  bucket   = "${var.name}-${each.key}-${var.suffix}-away"
}

resource "aws_s3_bucket_public_access_block" "away" {
  for_each                = var.away_buckets
  region                  = var.away_region
  bucket                  = aws_s3_bucket.away[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "away" {
  for_each = var.away_buckets
  region   = var.away_region
  bucket   = aws_s3_bucket.away[each.key].id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.away_kms_key_arn
    }
  }
}

resource "aws_s3_bucket_versioning" "away" {
  for_each = var.away_buckets
  region   = var.away_region
  bucket   = aws_s3_bucket.away[each.key].id
  versioning_configuration {
    status = "Enabled"
  }
}

# The copies age as the originals do; a deletion there is not one here.
resource "aws_s3_bucket_lifecycle_configuration" "away" {
  #checkov:skip=CKV_AWS_300:It does, as the plan shows; the source's dynamic rule hides it
  for_each   = var.away_buckets
  region     = var.away_region
  bucket     = aws_s3_bucket.away[each.key].id
  depends_on = [aws_s3_bucket_versioning.away]
  rule {
    id     = "old"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
    noncurrent_version_expiration {
      noncurrent_days = local.buckets[each.key].old_versions_after
    }
  }
  dynamic "rule" {
    for_each = local.buckets[each.key].expire_after > 0 ? [1] : []
    content {
      id     = "expire"
      status = "Enabled"
      filter {}
      expiration {
        days = local.buckets[each.key].expire_after
      }
    }
  }
}

resource "aws_iam_role" "replication" {
  count = length(var.away_buckets) > 0 ? 1 : 0
  name  = "${var.name}-replication"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "s3.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "replication" {
  count = length(var.away_buckets) > 0 ? 1 : 0
  name  = "replicate"
  role  = aws_iam_role.replication[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
        Resource = [for key in var.away_buckets : aws_s3_bucket.this[key].arn]
      },
      {
        Effect   = "Allow"
        Action   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"]
        Resource = [for key in var.away_buckets : "${aws_s3_bucket.this[key].arn}/*"]
      },
      {
        Effect   = "Allow"
        Action   = ["s3:ReplicateObject", "s3:ReplicateTags"]
        Resource = [for key in var.away_buckets : "${aws_s3_bucket.away[key].arn}/*"]
      },
      {
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = var.kms_key_arn
      },
      {
        Effect   = "Allow"
        Action   = ["kms:Encrypt", "kms:GenerateDataKey"]
        Resource = var.away_kms_key_arn
      },
    ]
  })
}

resource "aws_s3_bucket_replication_configuration" "away" {
  for_each   = var.away_buckets
  bucket     = aws_s3_bucket.this[each.key].id
  role       = aws_iam_role.replication[0].arn
  depends_on = [aws_s3_bucket_versioning.this, aws_s3_bucket_versioning.away]
  rule {
    id     = "away"
    status = "Enabled"
    filter {}
    delete_marker_replication {
      status = "Disabled"
    }
    source_selection_criteria {
      sse_kms_encrypted_objects {
        status = "Enabled"
      }
    }
    destination {
      bucket        = aws_s3_bucket.away[each.key].arn
      storage_class = "STANDARD_IA"
      encryption_configuration {
        replica_kms_key_id = var.away_kms_key_arn
      }
    }
  }
}
