variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "vpc_id" {
  type = string
}

variable "subnets" {
  type = list(string)
}

variable "electrum_port" {
  type = number
}

variable "p2p_port" {
  type = number
}

variable "http_port" {
  description = "Port of the health check."
  type        = number
}

variable "health_path" {
  type = string
}

variable "stop_timeout_secs" {
  type = number
}

variable "protected" {
  type = bool
}
