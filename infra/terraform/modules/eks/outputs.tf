output "name" {
  value = aws_eks_cluster.main.name
}

output "security_group" {
  description = "Of the machines and pods."
  value       = aws_eks_cluster.main.vpc_config[0].cluster_security_group_id
}
