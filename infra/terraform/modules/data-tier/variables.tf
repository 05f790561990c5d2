variable "name" {
  description = "Prefix of the names, for example pulse-bridge."
  type        = string
}

variable "vpc_id" {
  type = string
}

variable "subnets" {
  description = "Isolated subnets, in two zones at least."
  type        = list(string)

  validation {
    condition     = length(var.subnets) >= 2
    error_message = "A standby stands in another zone."
  }
}

variable "clients" {
  description = "Security groups that may connect, by a name for the rule."
  type        = map(string)
}

variable "database_class" {
  type = string
}

variable "database_gb" {
  description = "Storage at first; it grows by itself up to five times that."
  type        = number
}

variable "read_replicas" {
  type    = number
  default = 0
}

variable "cache_class" {
  type = string
}

variable "cache_nodes" {
  description = "Nodes of the cache, the primary included."
  type        = number

  validation {
    condition     = var.cache_nodes >= 2
    error_message = "Failover needs two nodes."
  }
}

variable "copy_away" {
  description = "Whether backups are copied to another region."
  type        = bool
  default     = false
}

variable "away_region" {
  type    = string
  default = null
}

variable "away_kms_key_arn" {
  type    = string
  default = null
}

variable "kms_key_arn" {
  type = string
}

variable "protected" {
  description = "Whether the database cannot be deleted by mistake."
  type        = bool
  default     = true
}
