variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "cidr" {
  description = "Address range of the VPC, a /16."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && endswith(var.cidr, "/16")
    error_message = "cidr must be a /16, for example 10.0.0.0/16."
  }
}

variable "zones" {
  description = "Availability zones to spread over."
  type        = number

  validation {
    condition     = var.zones >= 1 && var.zones <= 3
    error_message = "zones must be 1, 2 or 3."
  }
}

variable "private_nodes" {
  description = "Whether nodes stand in private subnets and reach out through NAT."
  type        = bool
}

variable "nat_per_zone" {
  description = "A NAT gateway in each zone instead of one for all."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "Key that encrypts the flow logs."
  type        = string
}

variable "interface_endpoints" {
  description = "AWS services that are reached inside the VPC, such as ssm or ecr.api."
  type        = set(string)
  default     = []
}
