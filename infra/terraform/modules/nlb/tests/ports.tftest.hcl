mock_provider "aws" {}

variables {
  name              = "pulse-test"
  vpc_id            = "vpc-1"
  subnets           = ["subnet-1", "subnet-2"]
  electrum_port     = 50002
  p2p_port          = 8333
  http_port         = 8080
  health_path       = "/health"
  stop_timeout_secs = 60
  protected         = true
}

run "wallets_and_peers_reach_synced_nodes_with_their_own_addresses" {
  command = plan
  assert {
    condition     = { for key, listener in aws_lb_listener.this : key => listener.port } == { electrum = 50002, p2p = 8333 }
    error_message = "a listener for each"
  }
  assert {
    condition     = alltrue([for group in aws_lb_target_group.this : group.preserve_client_ip == "true" && group.health_check[0].path == "/health" && group.health_check[0].port == "8080"])
    error_message = "an open port says nothing of a node's chain"
  }
}
