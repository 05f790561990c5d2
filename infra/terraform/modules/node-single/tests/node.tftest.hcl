mock_provider "aws" {
  mock_data "aws_ssm_parameter" {
    defaults = { insecure_value = "ami-0123456789abcdef0" }
  }
  mock_data "aws_subnet" {
    defaults = { availability_zone = "us-east-2a" }
  }
}

variables {
  name               = "pulse-test"
  instance_type      = "t3a.large"
  spot               = true
  volume_gb          = 200
  subnet             = "subnet-1"
  security_group     = "sg-1"
  instance_profile   = "profile"
  user_data_settings = "#!/bin/bash\n"
  user_data          = "echo"
  kms_key_arn        = "arn:aws:kms:us-east-2:123456789012:key/1"
}

run "the_volume_is_encrypted_backed_up_and_where_the_node_is" {
  command = plan
  assert {
    condition     = aws_ebs_volume.data.encrypted == true && aws_ebs_volume.data.tags.backup == "pulse-test" && aws_ebs_volume.data.availability_zone == "us-east-2a"
    error_message = "a volume of another zone could not be attached"
  }
  assert {
    condition     = aws_volume_attachment.data.stop_instance_before_detaching == true
    error_message = "the file system is unmounted first"
  }
}

run "a_spot_node_stops_and_comes_back" {
  command = plan
  assert {
    condition     = aws_instance.node.instance_market_options[0].spot_options[0].instance_interruption_behavior == "stop" && aws_instance.node.instance_market_options[0].spot_options[0].max_price == "0.05"
    error_message = "at most 5 cents an hour, and not terminated"
  }
  assert {
    condition     = aws_instance.node.metadata_options[0].http_tokens == "required"
    error_message = "IMDSv2 only"
  }
}

run "another_version_is_run_at_the_next_start" {
  command = plan
  override_resource {
    target          = aws_ebs_volume.data
    override_during = plan
    values          = { id = "vol-1" }
  }
  assert {
    condition     = aws_instance.node.user_data_replace_on_change != true
    error_message = "the instance is stopped and started, not replaced"
  }
  assert {
    condition     = aws_instance.node.user_data_base64 == base64gzip(local.user_data)
    error_message = "the instance gets something else"
  }
  assert {
    condition     = strcontains(local.user_data, "Content-Type: text/cloud-config; charset=\"utf-8\"\n\n#cloud-config\ncloud_final_modules:\n- [scripts-user, always]\n\n--=pulse-node=\nContent-Type: text/x-shellscript; charset=\"utf-8\"\n\n#!/bin/bash\nexport SETUP_DATA_DEVICE=vol-1\necho\n--=pulse-node=--\n")
    error_message = "cloud-init runs a script at the first boot only, unless it is told otherwise"
  }
}
