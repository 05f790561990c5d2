mock_provider "aws" {}

variables {
  name              = "pulse-test"
  region            = "us-east-2"
  vpc_id            = "vpc-1"
  subnets           = ["subnet-1", "subnet-2"]
  security_groups   = ["sg-1"]
  domain            = "api.example.com"
  zone_id           = "Z0123456789"
  http_port         = 8080
  health_path       = "/health"
  stop_timeout_secs = 60
  protected         = true
}

run "only_synced_nodes_are_asked" {
  command = plan
  assert {
    condition     = aws_lb_target_group.http.health_check[0].path == "/health" && aws_lb_target_group.http.health_check[0].matcher == "200"
    error_message = "the balancer routes by /health"
  }
  assert {
    condition     = aws_lb_listener.https.default_action[0].type == "forward" && length(aws_lb_listener_rule.cdn) == 0
    error_message = "without a CDN everybody may ask"
  }
}

run "around_the_cdn_there_is_no_way" {
  command = plan
  variables {
    behind_cdn     = true
    origin_secrets = ["new", "old"]
  }
  assert {
    condition     = aws_lb_listener.https.default_action[0].fixed_response[0].status_code == "403"
    error_message = "requests without the secret are refused"
  }
  assert {
    condition     = toset(nonsensitive(one(aws_lb_listener_rule.cdn[0].condition).http_header[0].values)) == toset(["new", "old"])
    error_message = "two secrets are good while one is replaced"
  }
}

run "each_region_answers_those_near_it" {
  command = plan
  assert {
    condition     = aws_route53_record.api.latency_routing_policy[0].region == "us-east-2" && length(aws_route53_record.api.geolocation_routing_policy) == 0
    error_message = "latency decides by default"
  }
  assert {
    condition     = aws_route53_health_check.site.fqdn == "us-east-2.api.example.com" && aws_route53_health_check.site.resource_path == "/health"
    error_message = "each region is checked by its own name"
  }
}

run "or_those_of_a_continent" {
  command = plan
  variables {
    geolocation = { continent = "EU" }
  }
  assert {
    condition     = aws_route53_record.api.geolocation_routing_policy[0].continent == "EU" && length(aws_route53_record.api.latency_routing_policy) == 0
    error_message = "geolocation takes latency's place"
  }
}
