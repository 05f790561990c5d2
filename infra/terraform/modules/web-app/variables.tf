variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "suffix" {
  description = "Makes the bucket's name unique in the world, for example the account id."
  type        = string
}

variable "domain" {
  description = "Name of the app, for example pulse.example.com."
  type        = string
}

variable "api_domain" {
  description = "Name of the API, which the app may talk to."
  type        = string
}

variable "zone_id" {
  description = "Route 53 zone of the domain."
  type        = string
}

variable "web_acl_arn" {
  description = "Firewall, of scope CLOUDFRONT."
  type        = string
}

variable "kms_key_arn" {
  type = string
}
