variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "region" {
  type = string
}

variable "vpc_id" {
  type = string
}

variable "subnets" {
  description = "Public subnets, in two zones at least."
  type        = list(string)
}

variable "security_groups" {
  type = list(string)
}

variable "domain" {
  description = "Name of the API, for example api.pulse.example.com."
  type        = string
}

variable "zone_id" {
  description = "Route 53 zone of the domain."
  type        = string
}

variable "http_port" {
  type = number
}

variable "health_path" {
  description = "Answers 200 only from nodes that are synced."
  type        = string
}

variable "stop_timeout_secs" {
  type = number
}

variable "protected" {
  description = "Whether the balancer cannot be deleted by mistake."
  type        = bool
}

variable "target_type" {
  description = "instance for the group's nodes, ip for pods."
  type        = string
  default     = "instance"
}

variable "behind_cdn" {
  description = "Whether requests without the secret header are refused."
  type        = bool
  default     = false
}

variable "secret_header" {
  type    = string
  default = "X-Origin-Secret"
}

variable "origin_secrets" {
  description = "Values of that header that are let through; two while one is replaced."
  type        = list(string)
  default     = []
  sensitive   = true
}

variable "geolocation" {
  description = "Whom this region answers, by continent (EU) or country (DE, or * for everybody else), instead of those near it."
  type = object({
    continent = optional(string)
    country   = optional(string)
  })
  default = null
}
