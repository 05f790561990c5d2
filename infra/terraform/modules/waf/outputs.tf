output "arn" {
  value = aws_wafv2_web_acl.main.arn
}

output "name" {
  description = "Its name in metrics."
  value       = aws_wafv2_web_acl.main.name
}
