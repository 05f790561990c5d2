mock_provider "aws" {}

variables {
  name           = "pulse-test"
  vpc_id         = "vpc-1"
  subnets        = ["subnet-1", "subnet-2", "subnet-3"]
  clients        = { nodes = "sg-1", cluster = "sg-2" }
  database_class = "db.m7g.large"
  database_gb    = 200
  read_replicas  = 1
  cache_class    = "cache.m7g.large"
  cache_nodes    = 3
  kms_key_arn    = "arn:aws:kms:us-east-2:123456789012:key/1"
}

run "both_survive_the_loss_of_a_zone" {
  command = plan
  assert {
    condition     = aws_db_instance.main.multi_az == true && aws_elasticache_replication_group.main.automatic_failover_enabled == true && aws_elasticache_replication_group.main.multi_az_enabled == true
    error_message = "a standby of each in another zone"
  }
  assert {
    condition     = startswith(aws_db_instance.main.engine_version, "16") && aws_db_instance.main.backup_retention_period == 14
    error_message = "PostgreSQL 14 or newer, with two weeks of backups"
  }
}

run "only_clients_connect_and_over_tls" {
  command = plan
  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.client) == ["cache-cluster", "cache-nodes", "database-cluster", "database-nodes"]
    error_message = "each client to each store"
  }
  assert {
    condition     = aws_elasticache_replication_group.main.transit_encryption_mode == "required" && contains([for parameter in aws_db_parameter_group.main.parameter : "${parameter.name}=${parameter.value}"], "rds.force_ssl=1")
    error_message = "no plain connections"
  }
  assert {
    condition     = aws_db_instance.main.publicly_accessible == false && aws_db_instance.main.password == null
    error_message = "no public address, and no password in the state"
  }
}

run "backups_are_copied_when_asked" {
  command = plan
  variables {
    copy_away        = true
    away_region      = "us-west-2"
    away_kms_key_arn = "arn:aws:kms:us-west-2:123456789012:key/2"
  }
  assert {
    condition     = aws_db_instance_automated_backups_replication.away[0].region == "us-west-2"
    error_message = "the copy is in the other region"
  }
}

run "one_cache_node_is_refused" {
  command = plan
  variables {
    cache_nodes = 1
  }
  expect_failures = [var.cache_nodes]
}
