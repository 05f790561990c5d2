variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "region" {
  type = string
}
