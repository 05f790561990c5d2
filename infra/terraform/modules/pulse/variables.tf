variable "environment" {
  description = "Which of environments.json: dev, staging or production."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "production"], var.environment)
    error_message = "environment must be dev, staging or production."
  }
}

variable "region" {
  type = string
}

variable "node_version" {
  description = "Version of pulse-node to run; its artifact lies in the artifacts bucket."
  type        = string

  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+(-[0-9A-Za-z.-]+)?$", var.node_version))
    error_message = "node_version is MAJOR.MINOR.PATCH, with or without a pre-release."
  }
}

variable "domain" {
  description = "Name of the API; needed where there is a balancer."
  type        = string
  default     = null
}

variable "zone_id" {
  description = "Route 53 zone of the domain; needed where there is a balancer."
  type        = string
  default     = null
}

variable "alarm_emails" {
  description = "Who is told of alarms and of costs."
  type        = list(string)
  default     = []
}

variable "ssh_from" {
  description = "Single addresses (/32) that may use SSH; none by default."
  type        = list(string)
  default     = []
}
