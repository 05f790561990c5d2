variable "domains" {
  description = "Names; the first is the certificate's own."
  type        = list(string)

  validation {
    condition     = length(var.domains) > 0
    error_message = "A certificate has one name at least."
  }
}

variable "zone_id" {
  description = "Route 53 zone of the names."
  type        = string
}

variable "region" {
  description = "us-east-1 for CloudFront, which takes certificates from nowhere else."
  type        = string
}
