# PostgreSQL and Redis beside the nodes, in the isolated subnets, for what a team builds on
# top (analytics, sessions). pulse-node itself needs neither.
#
# No password stands anywhere: RDS keeps the master's in Secrets Manager and renews it,
# applications use IAM (`rds_iam`, and the cache's user with IAM).

resource "aws_security_group" "this" {
  for_each    = { database = "PostgreSQL", cache = "Redis" }
  name        = "${var.name}-${each.key}"
  description = each.value
  vpc_id      = var.vpc_id
}

locals {
  ports = { database = 5432, cache = 6379 }
  # From whom to what: keys are known before the groups are.
  ways = { for pair in setproduct(keys(local.ports), keys(var.clients)) : "${pair[0]}-${pair[1]}" => { to = pair[0], from = pair[1] } }
}

resource "aws_vpc_security_group_ingress_rule" "client" {
  for_each                     = local.ways
  security_group_id            = aws_security_group.this[each.value.to].id
  description                  = "From ${each.value.from}"
  referenced_security_group_id = var.clients[each.value.from]
  ip_protocol                  = "tcp"
  from_port                    = local.ports[each.value.to]
  to_port                      = local.ports[each.value.to]
}

resource "aws_db_subnet_group" "main" {
  name       = var.name
  subnet_ids = var.subnets
}

resource "aws_db_parameter_group" "main" {
  name   = "${var.name}-postgres16"
  family = "postgres16"
  dynamic "parameter" {
    # TLS alone; queries over a second are logged; changes of tables, too.
    for_each = { "rds.force_ssl" = "1", log_min_duration_statement = "1000", log_statement = "ddl" }
    content {
      name  = parameter.key
      value = parameter.value
    }
  }
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_db_instance" "main" {
  #checkov:skip=CKV2_AWS_69:rds.force_ssl is in the table above, which only the plan unfolds
  identifier     = var.name
  engine         = "postgres"
  engine_version = "16"
  instance_class = var.database_class
  db_name        = "pulse"
  port           = local.ports.database

  username                            = "pulse_admin"
  manage_master_user_password         = true
  master_user_secret_kms_key_id       = var.kms_key_arn
  iam_database_authentication_enabled = true

  allocated_storage     = var.database_gb
  max_allocated_storage = 5 * var.database_gb
  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = var.kms_key_arn

  multi_az               = true
  db_subnet_group_name   = aws_db_subnet_group.main.name
  vpc_security_group_ids = [aws_security_group.this["database"].id]
  parameter_group_name   = aws_db_parameter_group.main.name
  publicly_accessible    = false

  # Any moment of two weeks can be restored, to about five minutes before the failure.
  backup_retention_period   = 14
  backup_window             = "02:00-03:00"
  maintenance_window        = "sun:04:00-sun:05:00"
  copy_tags_to_snapshot     = true
  deletion_protection       = var.protected
  skip_final_snapshot       = !var.protected
  final_snapshot_identifier = "${var.name}-last"

  auto_minor_version_upgrade      = true
  performance_insights_enabled    = true
  performance_insights_kms_key_id = var.kms_key_arn
  monitoring_interval             = 60
  monitoring_role_arn             = aws_iam_role.monitoring.arn
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]
}

resource "aws_db_instance" "replica" {
  #checkov:skip=CKV2_AWS_69:As the primary
  count                           = var.read_replicas
  identifier                      = "${var.name}-read-${count.index + 1}"
  replicate_source_db             = aws_db_instance.main.identifier
  instance_class                  = var.database_class
  storage_encrypted               = true
  kms_key_id                      = var.kms_key_arn
  vpc_security_group_ids          = [aws_security_group.this["database"].id]
  parameter_group_name            = aws_db_parameter_group.main.name
  publicly_accessible             = false
  multi_az                        = false
  copy_tags_to_snapshot           = true
  deletion_protection             = var.protected
  skip_final_snapshot             = true
  auto_minor_version_upgrade      = true
  performance_insights_enabled    = true
  performance_insights_kms_key_id = var.kms_key_arn
  monitoring_interval             = 60
  monitoring_role_arn             = aws_iam_role.monitoring.arn
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]
}

# The same backups in another region.
resource "aws_db_instance_automated_backups_replication" "away" {
  count                  = var.copy_away ? 1 : 0
  region                 = var.away_region
  source_db_instance_arn = aws_db_instance.main.arn
  kms_key_id             = var.away_kms_key_arn
  retention_period       = 14
}

resource "aws_iam_role" "monitoring" {
  name = "${var.name}-database-monitoring"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "monitoring.rds.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  role       = aws_iam_role.monitoring.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

resource "aws_elasticache_subnet_group" "main" {
  name       = var.name
  subnet_ids = var.subnets
}

resource "aws_elasticache_replication_group" "main" {
  replication_group_id       = var.name
  description                = "Redis of ${var.name}"
  engine                     = "redis"
  engine_version             = "7.1"
  node_type                  = var.cache_class
  num_cache_clusters         = var.cache_nodes
  automatic_failover_enabled = true
  multi_az_enabled           = true
  port                       = local.ports.cache
  subnet_group_name          = aws_elasticache_subnet_group.main.name
  security_group_ids         = [aws_security_group.this["cache"].id]
  at_rest_encryption_enabled = true
  kms_key_id                 = var.kms_key_arn
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  user_group_ids             = [aws_elasticache_user_group.main.user_group_id]
  # What is cached can be made again; a snapshot a day spares a cold start.
  snapshot_retention_limit   = 1
  auto_minor_version_upgrade = true
  apply_immediately          = false
}

# The user that every Redis has is switched off; the application's proves itself by IAM.
resource "aws_elasticache_user" "default" {
  user_id       = "${var.name}-default"
  user_name     = "default"
  engine        = "redis"
  access_string = "off ~* -@all"
  authentication_mode {
    type = "no-password-required"
  }
}

resource "aws_elasticache_user" "app" {
  # With IAM the two must be equal.
  user_id       = "${var.name}-app"
  user_name     = "${var.name}-app"
  engine        = "redis"
  access_string = "on ~* +@all -@dangerous -@admin"
  authentication_mode {
    type = "iam"
  }
}

resource "aws_elasticache_user_group" "main" {
  engine        = "redis"
  user_group_id = var.name
  user_ids      = [aws_elasticache_user.default.user_id, aws_elasticache_user.app.user_id]
}
