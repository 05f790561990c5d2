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

output "balancer_arn" {
  value = aws_lb.main.arn
}

output "health_check_id" {
  description = "Of Route 53, for its alarm."
  value       = aws_route53_health_check.site.id
}
