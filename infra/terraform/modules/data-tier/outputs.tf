output "database" {
  description = "Host and port of the database."
  value       = aws_db_instance.main.endpoint
}

output "database_replicas" {
  value = aws_db_instance.replica[*].endpoint
}

output "cache" {
  description = "Host of the cache's primary."
  value       = aws_elasticache_replication_group.main.primary_endpoint_address
}
