output "buckets" {
  description = "Names by purpose: artifacts, snapshots, archive."
  value       = { for key, bucket in aws_s3_bucket.this : key => bucket.bucket }
}

output "arns" {
  value = { for key, bucket in aws_s3_bucket.this : key => bucket.arn }
}
