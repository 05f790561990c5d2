variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "suffix" {
  description = "Makes the buckets' names unique in the world, for example the account id."
  type        = string
}

variable "kms_key_arn" {
  type = string
}
