# Daily EBS snapshots of the tagged volumes, with a copy in another region.

resource "aws_backup_vault" "here" {
  name        = var.name
  kms_key_arn = var.kms_key_arn
}

resource "aws_backup_vault" "away" {
  count       = var.copy_away ? 1 : 0
  region      = var.away_region
  name        = var.name
  kms_key_arn = var.away_kms_key_arn
}

resource "aws_backup_plan" "daily" {
  name = var.name
  rule {
    rule_name         = "daily"
    target_vault_name = aws_backup_vault.here.name
    schedule          = "cron(0 4 * * ? *)"
    start_window      = 60
    completion_window = 600
    lifecycle {
      delete_after = var.keep_days
    }
    dynamic "copy_action" {
      for_each = aws_backup_vault.away[*].arn
      content {
        destination_vault_arn = copy_action.value
        lifecycle {
          delete_after = var.keep_days
        }
      }
    }
  }
}

resource "aws_iam_role" "backup" {
  name = "${var.name}-backup"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "backup.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "backup" {
  for_each   = toset(["AWSBackupServiceRolePolicyForBackup", "AWSBackupServiceRolePolicyForRestores"])
  role       = aws_iam_role.backup.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/${each.key}"
}

resource "aws_backup_selection" "tagged" {
  name         = var.name
  plan_id      = aws_backup_plan.daily.id
  iam_role_arn = aws_iam_role.backup.arn
  selection_tag {
    type  = "STRINGEQUALS"
    key   = "backup"
    value = var.name
  }
}
