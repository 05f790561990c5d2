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

variable "security_group" {
  type = string
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
