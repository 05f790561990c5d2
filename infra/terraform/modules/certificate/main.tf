# A certificate for some names of one Route 53 zone, proved by DNS records.

resource "aws_acm_certificate" "main" {
  region                    = var.region
  domain_name               = var.domains[0]
  subject_alternative_names = slice(var.domains, 1, length(var.domains))
  validation_method         = "DNS"
  lifecycle {
    create_before_destroy = true
  }
}

# The keys are known before the certificate is.
resource "aws_route53_record" "validation" {
  for_each        = toset(var.domains)
  zone_id         = var.zone_id
  name            = one([for option in aws_acm_certificate.main.domain_validation_options : option.resource_record_name if option.domain_name == each.key])
  type            = one([for option in aws_acm_certificate.main.domain_validation_options : option.resource_record_type if option.domain_name == each.key])
  records         = [for option in aws_acm_certificate.main.domain_validation_options : option.resource_record_value if option.domain_name == each.key]
  ttl             = 60
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "main" {
  region                  = var.region
  certificate_arn         = aws_acm_certificate.main.arn
  validation_record_fqdns = [for record in aws_route53_record.validation : record.fqdn]
}
