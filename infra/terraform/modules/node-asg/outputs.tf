output "group" {
  description = "Name of the auto-scaling group."
  value       = aws_autoscaling_group.nodes.name
}
