variable "name" {
  description = "Prefix of the names, for example pulse-dev."
  type        = string
}

variable "instance_type" {
  type = string
}

variable "spot" {
  type    = bool
  default = false
}

variable "spot_max_price" {
  description = "Most to pay per hour for a spot instance, in USD."
  type        = string
  default     = "0.05"
}

variable "volume_gb" {
  description = "Size of the data volume."
  type        = number
}

variable "volume_iops" {
  type    = number
  default = 3000
}

variable "volume_mib_per_second" {
  type    = number
  default = 250
}

variable "subnet" {
  type = string
}

variable "security_group" {
  type = string
}

variable "instance_profile" {
  type = string
}

variable "user_data_settings" {
  description = "First lines of the user data: the shebang and the settings."
  type        = string
}

variable "user_data" {
  description = "infra/instance/user-data.sh."
  type        = string
}

variable "kms_key_arn" {
  type = string
}
