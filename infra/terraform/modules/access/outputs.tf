output "instance_profile" {
  value = aws_iam_instance_profile.node.name
}

output "node_security_group" {
  value = aws_security_group.node.id
}

output "balancer_security_groups" {
  description = "All groups of the load balancer."
  value       = concat([aws_security_group.balancer.id], aws_security_group.health_checks[*].id)
}

output "balancer_security_group" {
  description = "The one that reaches the nodes."
  value       = aws_security_group.balancer.id
}

output "cdn_networks" {
  description = "Addresses that CloudFront asks from; empty without a CDN."
  value       = flatten([for key, list in data.aws_ec2_managed_prefix_list.https : list.entries[*].cidr if key == "cdn"])
}

output "node_role_arn" {
  value = aws_iam_role.node.arn
}
