variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "nodes" {
  description = "Fewest and most nodes."
  type        = list(number)

  validation {
    condition     = length(var.nodes) == 2 && var.nodes[0] >= 1 && var.nodes[0] <= var.nodes[1] && var.nodes[1] <= 10
    error_message = "nodes is [fewest, most], from 1 to 10."
  }
}

variable "instance_type" {
  type = string
}

variable "spot" {
  description = "Whether all nodes are spot instances, which may be taken away."
  type        = bool
}

variable "volume_gb" {
  description = "Size of each node's data volume."
  type        = number
}

variable "volume_iops" {
  type    = number
  default = 6000
}

variable "volume_mib_per_second" {
  type    = number
  default = 500
}

variable "data_device" {
  description = "Name under which the data volume is attached."
  type        = string
  default     = "/dev/sdf"
}

variable "subnets" {
  type = list(string)
}

variable "public_address" {
  description = "Whether nodes have addresses of their own, where they stand in public subnets."
  type        = bool
  default     = false
}

variable "security_group" {
  type = string
}

variable "instance_profile" {
  type = string
}

variable "target_groups" {
  description = "Target groups of the balancers."
  type        = list(string)
}

variable "user_data" {
  description = "infra/instance/user-data.sh with its settings in front."
  type        = string
}

variable "kms_key_arn" {
  type = string
}

variable "warmup_secs" {
  description = "Time from the moment a node serves until its caches are warm and its processor counts."
  type        = number
  default     = 600

  validation {
    condition     = var.warmup_secs >= 0 && var.warmup_secs <= 3600
    error_message = "AWS takes up to an hour."
  }
}

variable "image_parameter" {
  description = "SSM parameter with the id of the machine image: Amazon Linux 2023, which has all that user-data.sh needs. Ubuntu works, too: /aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"
  type        = string
  default     = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
}

variable "balancer" {
  description = "Suffixes of the load balancer and its target group, whose count of healthy nodes guards the scaling."
  type = object({
    arn_suffix          = string
    target_group_suffix = string
  })
}

variable "stop_timeout_secs" {
  description = "The node's own node.stop_timeout_secs."
  type        = number
}
