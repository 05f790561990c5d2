variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "region" {
  type = string
}

variable "has_group" {
  description = "Whether nodes stand in an auto-scaling group."
  type        = bool
}

variable "has_instance" {
  description = "Whether there is a single node."
  type        = bool
}

variable "has_check" {
  description = "Whether the Lambda function asks the API from outside."
  type        = bool
}

variable "no_block_minutes" {
  description = "Minutes without a block that are worth a look. By chance, 30 happen seven times a day, 60 every third day, 90 every second month."
  type        = number
  default     = 90

  validation {
    condition     = var.no_block_minutes % 5 == 0 && var.no_block_minutes >= 5
    error_message = "Metrics are looked at every five minutes."
  }
}

variable "has_file_system" {
  type    = bool
  default = false
}

variable "file_system_id" {
  description = "EFS of the shared snapshots, if there is one."
  type        = string
  default     = null
}

variable "has_balancer" {
  type = bool
}

variable "group" {
  description = "Auto-scaling group of the nodes, if there is one."
  type        = string
  default     = null
}

variable "instance_id" {
  description = "The single node, if there is one."
  type        = string
  default     = null
}

variable "balancer" {
  description = "Suffixes of the load balancer and its target group, if there is one."
  type = object({
    arn_suffix          = string
    target_group_suffix = string
  })
  default = null
}

variable "data_volume" {
  description = "Path where the data volume is mounted."
  type        = string
}

variable "log_group" {
  type = string
}

variable "alarm_topic_arn" {
  type = string
}
