output "arn" {
  description = "Known once the certificate is issued."
  value       = aws_acm_certificate_validation.main.certificate_arn
}
