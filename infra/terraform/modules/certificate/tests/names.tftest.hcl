mock_provider "aws" {}

variables {
  domains = ["api.example.com", "us-east-2.api.example.com"]
  zone_id = "Z0123456789"
  region  = "us-east-1"
}

run "every_name_is_proved" {
  command = plan
  assert {
    condition     = tolist(keys(aws_route53_record.validation)) == sort(var.domains)
    error_message = "each name has its record"
  }
  assert {
    condition     = aws_acm_certificate.main.region == "us-east-1" && aws_acm_certificate_validation.main.region == "us-east-1"
    error_message = "the certificate is where it is wanted"
  }
}
