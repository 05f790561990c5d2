output "target_group" {
  value = aws_lb_target_group.http.arn
}

output "arn_suffix" {
  description = "Of the balancer, for metrics."
  value       = aws_lb.main.arn_suffix
}

output "target_group_suffix" {
  value = aws_lb_target_group.http.arn_suffix
}

output "url" {
  value = "https://${var.domain}"
}
