mock_provider "aws" {}

variables {
  name             = "pulse-test"
  copy_away        = true
  away_region      = "us-west-2"
  away_kms_key_arn = "arn:aws:kms:us-west-2:123456789012:key/2"
  kms_key_arn      = "arn:aws:kms:us-east-2:123456789012:key/1"
}

run "a_copy_a_day_here_and_one_away" {
  command = apply
  assert {
    condition     = aws_backup_vault.away[0].region == "us-west-2" && one(one(aws_backup_plan.daily.rule).copy_action).destination_vault_arn == aws_backup_vault.away[0].arn
    error_message = "the copy goes to the other region"
  }
  assert {
    condition     = one(aws_backup_selection.tagged.selection_tag).value == "pulse-test"
    error_message = "volumes tagged with the environment's name"
  }
}

run "or_none_away" {
  command = plan
  variables {
    copy_away = false
  }
  assert {
    condition     = length(aws_backup_vault.away) == 0 && length(one(aws_backup_plan.daily.rule).copy_action) == 0
    error_message = "no vault that nobody asked for"
  }
}
