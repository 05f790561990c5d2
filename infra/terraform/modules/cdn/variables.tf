variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "domain" {
  description = "Name of the API, for example api.pulse.example.com."
  type        = string
}

variable "zone_id" {
  description = "Route 53 zone of the domain."
  type        = string
}

variable "origin_domain" {
  description = "Name of the balancers behind, with a certificate for it."
  type        = string
}

variable "secret_header" {
  type = string
}

variable "origin_secret" {
  description = "Value of that header, which the balancers want to see."
  type        = string
  sensitive   = true
}

variable "web_acl_arn" {
  description = "Firewall, of scope CLOUDFRONT."
  type        = string
}

variable "price_class" {
  description = "PriceClass_100 is Europe and North America, PriceClass_All the world."
  type        = string
  default     = "PriceClass_All"
}
