mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-2a", "us-east-2b", "us-east-2c"] }
  }
  mock_data "aws_region" {
    defaults = { region = "us-east-2" }
  }
}

variables {
  name          = "pulse-test"
  zones         = 3
  private_nodes = true
  nat_per_zone  = true
  kms_key_arn   = "arn:aws:kms:us-east-2:123456789012:key/1"
}

run "subnets_are_where_the_plan_says" {
  command = plan
  assert {
    condition = concat(aws_subnet.public[*].cidr_block, aws_subnet.private[*].cidr_block, aws_subnet.database[*].cidr_block) == [
      "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24",
      "10.0.11.0/24", "10.0.12.0/24", "10.0.13.0/24",
      "10.0.21.0/24", "10.0.22.0/24", "10.0.23.0/24",
    ]
    error_message = "public 1-3, private 11-13, database 21-23"
  }
  assert {
    condition     = length(aws_nat_gateway.main) == 3
    error_message = "each zone has its own way out"
  }
}

run "nodes_with_addresses_need_no_nat" {
  command = plan
  variables {
    zones         = 1
    private_nodes = false
  }
  assert {
    condition     = length(aws_nat_gateway.main) == 0
    error_message = "no NAT gateway is paid for nothing"
  }
}

run "databases_speak_with_the_vpc_only" {
  command = plan
  assert {
    condition     = alltrue([for rule in setunion(aws_network_acl.database.ingress, aws_network_acl.database.egress) : rule.cidr_block == "10.0.0.0/16"])
    error_message = "no rule of the list goes beyond the VPC"
  }
}

run "private_machines_reach_aws_inside" {
  command = plan
  variables {
    interface_endpoints = ["ssm", "ecr.api"]
  }
  assert {
    condition     = aws_vpc_endpoint.interface["ecr.api"].service_name == "com.amazonaws.us-east-2.ecr.api" && aws_vpc_security_group_ingress_rule.endpoints[0].cidr_ipv4 == "10.0.0.0/16"
    error_message = "endpoints stand in the VPC, for the VPC"
  }
}
