output "instance_id" {
  value = aws_instance.node.id
}

output "address" {
  description = "Elastic IP of the node."
  value       = aws_eip.node.public_ip
}
