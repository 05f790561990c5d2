variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "vpc_id" {
  type = string
}

variable "subnets" {
  description = "Subnets of the nodes, one in each zone."
  type        = list(string)
}

variable "node_security_group" {
  type = string
}

variable "node_role_arn" {
  type = string
}

variable "user_id" {
  description = "Number of the service's user and group on the nodes."
  type        = number
}

variable "kms_key_arn" {
  type = string
}
