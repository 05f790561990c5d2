variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "log_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 365
}

variable "emails" {
  description = "Who is told of alarms."
  type        = list(string)
}

variable "kms_key_arn" {
  type = string
}
