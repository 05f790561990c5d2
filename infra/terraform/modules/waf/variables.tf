variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "scope" {
  description = "CLOUDFRONT for distributions, REGIONAL for a load balancer."
  type        = string

  validation {
    condition     = contains(["CLOUDFRONT", "REGIONAL"], var.scope)
    error_message = "scope is CLOUDFRONT or REGIONAL."
  }
}

variable "region" {
  description = "us-east-1 for distributions, else the balancer's."
  type        = string

  validation {
    condition     = var.scope == "REGIONAL" || var.region == "us-east-1"
    error_message = "Firewalls of distributions are kept in us-east-1."
  }
}

variable "requests_per_5_minutes" {
  description = "Requests of one address in five minutes; a fifth of it for POST."
  type        = number

  validation {
    condition     = var.requests_per_5_minutes >= 10
    error_message = "AWS counts from 10 requests on."
  }
}

variable "blocked_countries" {
  description = "Two-letter codes of countries that are not served."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for code in var.blocked_countries : can(regex("^[A-Z]{2}$", code))])
    error_message = "Countries are two capital letters (ISO 3166)."
  }
}

variable "balancer_arn" {
  type    = string
  default = null
}
