output "target_groups" {
  value = [for group in aws_lb_target_group.this : group.arn]
}

output "dns_name" {
  value = aws_lb.main.dns_name
}
