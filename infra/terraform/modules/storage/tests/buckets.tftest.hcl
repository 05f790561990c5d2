mock_provider "aws" {}

variables {
  name             = "pulse-test"
  suffix           = "123456789012"
  kms_key_arn      = "arn:aws:kms:us-east-2:123456789012:key/1"
  away_buckets     = ["archive"]
  away_region      = "us-west-2"
  away_kms_key_arn = "arn:aws:kms:us-west-2:123456789012:key/2"
}

run "nothing_is_public" {
  command = plan
  assert {
    condition = alltrue([
      for block in concat(values(aws_s3_bucket_public_access_block.this), values(aws_s3_bucket_public_access_block.away)) :
      block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets
    ])
    error_message = "no bucket, here or away"
  }
}

run "snapshots_go_after_30_days_the_archive_gets_cold" {
  command = plan
  assert {
    condition     = one([for rule in aws_s3_bucket_lifecycle_configuration.this["snapshots"].rule : rule.expiration[0].days if rule.id == "expire"]) == 30
    error_message = "snapshots are kept for 30 days"
  }
  assert {
    condition     = one([for rule in aws_s3_bucket_lifecycle_configuration.this["archive"].rule : one(rule.transition).storage_class if rule.id == "to-glacier"]) == "GLACIER"
    error_message = "the archive moves to Glacier"
  }
}

run "copies_are_encrypted_with_the_other_region_s_key" {
  command = plan
  assert {
    condition     = keys(aws_s3_bucket.away) == ["archive"] && aws_s3_bucket.away["archive"].region == "us-west-2"
    error_message = "what is asked for, where it is asked for"
  }
  assert {
    condition     = one(aws_s3_bucket_replication_configuration.away["archive"].rule).destination[0].encryption_configuration[0].replica_kms_key_id == var.away_kms_key_arn
    error_message = "a key does not leave its region"
  }
}

run "an_unknown_bucket_is_refused" {
  command = plan
  variables {
    away_buckets = ["everything"]
  }
  expect_failures = [var.away_buckets]
}
