variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "region" {
  type = string
}

variable "has_group" {
  description = "Whether nodes stand in an auto-scaling group, or there is one alone."
  type        = bool
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
