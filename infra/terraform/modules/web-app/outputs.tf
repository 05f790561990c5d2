output "bucket" {
  value = aws_s3_bucket.app.bucket
}

output "distribution_id" {
  description = "For invalidations after a release."
  value       = aws_cloudfront_distribution.app.id
}

output "url" {
  value = "https://${var.domain}"
}
