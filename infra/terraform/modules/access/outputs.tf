output "instance_profile" {
  value = aws_iam_instance_profile.node.name
}

output "node_security_group" {
  value = aws_security_group.node.id
}

output "balancer_security_group" {
  value = aws_security_group.balancer.id
}
