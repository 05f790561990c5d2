output "distribution_id" {
  value = aws_cloudfront_distribution.api.id
}

output "url" {
  value = "https://${var.domain}"
}
