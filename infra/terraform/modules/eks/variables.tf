variable "name" {
  description = "Name of the cluster and prefix of the names, for example pulse-bridge."
  type        = string
}

variable "kubernetes_version" {
  type = string
}

variable "subnets" {
  description = "Private subnets, one in each zone, two at least."
  type        = list(string)

  validation {
    condition     = length(var.subnets) >= 2
    error_message = "EKS stands in two zones at least."
  }
}

variable "api_from" {
  description = "Networks that may use the cluster's API from the Internet; none by default."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.api_from, "0.0.0.0/0")
    error_message = "The cluster's API is not for everybody."
  }
}

variable "admin_roles" {
  description = "IAM roles that may do everything in the cluster, the deployment's among them."
  type        = set(string)
  default     = []
}

variable "viewer_roles" {
  description = "IAM roles that may look, but not at secrets."
  type        = set(string)
  default     = []
}

variable "instance_type" {
  type = string
}

variable "nodes_per_zone" {
  description = "Fewest and most machines in each zone."
  type        = list(number)
}

variable "spot_instance_types" {
  type = list(string)
}

variable "balancer_security_group" {
  type = string
}

variable "target_group" {
  description = "Target group (of type ip) of the load balancer."
  type        = string
}

variable "http_port" {
  type = number
}

variable "snapshots_bucket_arn" {
  type = string
}

variable "kms_key_arn" {
  type = string
}

variable "protected" {
  description = "Whether the cluster cannot be deleted by mistake."
  type        = bool
  default     = true
}
