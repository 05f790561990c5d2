mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

variables {
  name   = "pulse-test"
  region = "us-west-2"
}

run "the_key_turns_over_and_is_not_deleted_at_once" {
  command = plan
  assert {
    condition     = aws_kms_key.main.enable_key_rotation == true && aws_kms_key.main.deletion_window_in_days == 30 && aws_kms_key.main.region == "us-west-2"
    error_message = "rotation every year, a month to change one's mind, in the region asked for"
  }
}

run "logs_use_it_only_for_their_own_groups" {
  command = plan
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_kms_key.main.policy).Statement :
      alltrue([for arn in statement.Condition.ArnLike["kms:EncryptionContext:aws:logs:arn"] : strcontains(arn, "123456789012:log-group:/")])
      if statement.Sid == "Logs"
    ])
    error_message = "log groups of this project alone"
  }
}
